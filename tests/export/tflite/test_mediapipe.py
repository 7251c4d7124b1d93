"""A real client: MediaPipe Tasks' ImageClassifier, installed in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import helper
from PIL import Image

from edgecls.core.preprocess import PRESETS, Preprocess
from edgecls.core.progress import Quiet
from edgecls.export.tflite import add_metadata, for_phones, lower
from edgecls.runtimes import load
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions

pytestmark = pytest.mark.nightly

BGR = Preprocess(color="bgr", scale=1.0, mean=(103.5, 116.25, 123.75), std=(57.5, 57.0, 58.5))
PHOTOS = 20

# Prints, for each image, all categories that the client gives, best first.
CLIENT = """
import json, sys
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

model, images, count = sys.argv[1:]
options = vision.ImageClassifierOptions(
    base_options=BaseOptions(model_asset_path=model), max_results=int(count)
)
found = []
with vision.ImageClassifier.create_from_options(options) as classifier:
    for pixels in np.load(images):
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        categories = classifier.classify(image).classifications[0].categories
        found.append([[c.index, c.category_name, c.score] for c in categories])
json.dump(found, open(images + ".json", "w"))
"""


@pytest.fixture(scope="module")
def classify(tmp_path_factory):
    """Return a function that classifies images (N, H, W, 3) with a file in MediaPipe."""
    root = tmp_path_factory.mktemp("mediapipe")
    venv.create(root / "venv", with_pip=True)
    python = root / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "mediapipe"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mediapipe cannot be installed here: {done.stderr.strip()[-300:]}")

    def run(tflite: bytes, pixels: np.ndarray, count: int):
        model, images = root / "model.tflite", root / "images.npy"
        model.write_bytes(tflite)
        np.save(images, pixels)
        command = [str(part) for part in (python, "-c", CLIENT, model, images, count)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(images.with_name("images.npy.json").read_text())

    return run


@pytest.mark.parametrize("preprocess", [PRESETS["imagenet"], PRESETS["inception"], BGR])
@pytest.mark.parametrize("quantized", [False, True])
def test_every_score(lab, classify, preprocess, quantized):
    """Labels, colours and normalisation arrive: the client's scores are the file's logits."""
    constants = {"w": lab.rng.normal(0, 0.3, (6, 3, 3, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    model = lab.graph(nodes, (1, 3, 32, 32), constants)
    data = lower(lab.quantize(model) if quantized else model).data
    labels = tuple(f"a class, {sign}" for sign in "äßçde日")
    phone = add_metadata(
        for_phones(data, preprocess), preprocess=preprocess, labels=labels, name="n", description=""
    )
    pixels = lab.rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)

    found = classify(phone, pixels, 6)

    own = preprocess.normalize(pixels[..., ::-1] if preprocess.color == "bgr" else pixels)
    (expected,) = lab.onnx(model, own)
    # The quantized graph's own distance from the float graph is not in question here.
    if quantized:
        expected = logits(phone, pixels)
    for categories, scores in zip(found, expected, strict=True):
        assert sorted(index for index, _, _ in categories) == list(range(6))
        for index, name, score in categories:
            assert name == labels[index]
            assert score == pytest.approx(scores[index], rel=1e-4, abs=1e-4)


def test_photos_as_predict_sees_them(edgecls_data: Path, tmp_path: Path, classify):
    """Photos cut to size beforehand: MediaPipe's top-5 is ``predict``'s."""
    cut = tmp_path / "cut"
    cut.mkdir()
    (tmp_path / "cut.toml").write_text(
        "[preprocess]\nresize = 0\ncrop = 224\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n"
    )
    photos = sorted((edgecls_data / "imagenet500").glob("*/*.jpg"))
    for photo in photos[:: len(photos) // PHOTOS][:PHOTOS]:
        with Image.open(photo) as image:
            side = min(image.size) * 224 // 256
            left, top = ((size - side) // 2 for size in image.size)
            square = image.convert("RGB").crop((left, top, left + side, top + side))
        square.resize((224, 224), Image.Resampling.BICUBIC).save(cut / f"{photo.stem}.png")
    export(
        ExportOptions(
            source="timm:tf_efficientnet_lite0",
            weights=edgecls_data / "weights" / "efficientnet-lite0-57934424.pth",
            targets=("raspberry-pi",),
            calib=edgecls_data / "imagenet500",
            labels=edgecls_data / "imagenet_classes.json",
            preprocess=str(tmp_path / "cut.toml"),
            out=tmp_path / "out",
        ),
        Quiet(),
    )
    bundle = tmp_path / "out" / "raspberry-pi"
    predictor = load(bundle)
    manifest = predictor.bundle.manifest
    phone = add_metadata(
        for_phones((bundle / "model.int8.tflite").read_bytes(), manifest.preprocess),
        preprocess=manifest.preprocess,
        labels=manifest.labels,
        name="EfficientNet-Lite0",
        description="ImageNet's classes",
    )
    files = sorted(cut.iterdir())
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])

    found = classify(phone, pixels, 5)

    assert len(files) == PHOTOS
    for file, categories, scores in zip(files, found, logits(phone, pixels), strict=True):
        topk = predictor.predict(file, topk=5).topk
        assert [entry.label for entry in topk[:1]] == [name for _, name, _ in categories[:1]]
        # int8 logits are equal now and then; which of those comes first says nothing.
        np.testing.assert_allclose(
            [scores[entry.index] for entry in topk],
            [score for _, _, score in categories],
            rtol=1e-6,
        )
        for index, name, score in categories:
            assert name == manifest.labels[index]
            assert score == pytest.approx(float(scores[index]), rel=1e-6)


def logits(tflite: bytes, pixels: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=tflite, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in pixels:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(result["index"])[0].copy())
    return np.stack(found)
