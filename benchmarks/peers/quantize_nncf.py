"""Quantizes a float ONNX graph with NNCF's accuracy control: layers go back to float as needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import nncf
import numpy as np
import onnx
import onnxruntime as ort
from job import Job, main
from nncf.quantization.advanced_parameters import (
    AdvancedQuantizationParameters,
    QuantizationParameters,
)


def quantize(job: Job) -> None:
    """Write one Q/DQ graph."""
    options = job.options
    model = onnx.load(job.onnx)
    (source,) = (value.name for value in model.graph.input)
    truth = np.load(options["truth"])

    def tensor(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {source: ((pixels[None] / 255 - job.mean) / job.std).transpose(0, 3, 1, 2)
                .astype(np.float32)}  # fmt: skip

    def right(graph: onnx.ModelProto, items: Iterable[Any]) -> tuple[float, list[float]]:
        session = ort.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        found = [
            float(session.run(None, one["tensor"])[0].argmax() == one["truth"]) for one in items
        ]
        return float(np.mean(found)), found

    tuning = [
        {"tensor": tensor(pixels), "truth": label}
        for pixels, label in zip(np.load(options["tune"]), truth, strict=True)
    ]
    per_channel = QuantizationParameters(per_channel=options["per_channel"])
    with job.stage("quantize"):
        quantized = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset([tensor(pixels) for pixels in np.load(job.pixels)]),
            nncf.Dataset(tuning),
            right,
            max_drop=options["max_drop"] / 100,
            preset=nncf.QuantizationPreset.MIXED,  # activations asymmetric
            model_type=nncf.ModelType.TRANSFORMER if options["transformer"] else None,
            advanced_quantization_parameters=AdvancedQuantizationParameters(
                weights_quantization_params=per_channel
            ),
        )
    path = job.out / "model.onnx"
    onnx.save(quantized, path)
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
