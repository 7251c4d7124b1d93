"""The form of a TFLite artefact that MediaPipe's and Android's image classifiers take."""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ..bundle.manifest import Artefact
from ..core.preprocess import Preprocess
from ..core.values import Logits, Pixels, StepCheck
from ..export.tflite import add_metadata, for_phones, try_in_subprocess
from .artefacts import Built
from .graph import check_step

DESCRIPTION = "An image classifier. Its scores are logits: softmax makes them probabilities."


def phone_form(
    built: Built,
    *,
    preprocess: Preprocess,
    labels: tuple[str, ...] | None,
    name: str,
    pixels: Pixels,
    limit: float,
) -> tuple[Built, StepCheck]:
    """Return an artefact with its normalisation inside and with standard metadata.

    Args:
        built: A TFLite artefact of the bundle.
        preprocess: Of the bundle.
        labels: Class names, which are packed into the file.
        name: Of the model, for the metadata.
        pixels: Samples, shape (N, H, W, C), uint8, that both files are compared on.
        limit: Largest max|a-b| / max|a| of the logits.

    Raises:
        CheckFailedError: It answers differently.
        GraphError: The file has not the form of an image classifier.
    """
    data = add_metadata(
        for_phones(built.data, preprocess),
        preprocess=preprocess,
        labels=labels,
        name=name,
        description=DESCRIPTION,
    )
    try_in_subprocess(data)
    # Phones give red, green and blue, whatever the model wants.
    given = pixels[..., ::-1] if preprocess.color == "bgr" else pixels
    check = check_step("phone", "the device's file", built.logits, _run(data, given), limit)
    source, result = built.artefact.input, built.artefact.output
    artefact = Artefact(
        path=built.artefact.path.replace(".tflite", ".phone.tflite"),
        format="tflite",
        precision=built.artefact.precision,
        input=type(source)(name="pixels", shape=source.shape, dtype="uint8"),
        output=type(result)(name=result.name, shape=result.shape, dtype="float32"),
        quantized=built.artefact.quantized,
        left_float=built.artefact.left_float,
    )
    return Built(artefact=artefact, data=data, logits=built.logits), check


def _run(tflite: bytes, pixels: Pixels) -> Logits:
    net = Interpreter(model_content=tflite, num_threads=1)
    net.allocate_tensors()
    source, result = net.get_input_details()[0]["index"], net.get_output_details()[0]["index"]
    found = []
    for image in pixels:
        net.set_tensor(source, image[None])
        net.invoke()
        found.append(net.get_tensor(result)[0].astype(np.float32))
    return np.stack(found)
