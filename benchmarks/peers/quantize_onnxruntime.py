"""Quantizes a float ONNX graph with ONNX Runtime's quantizer, weights per channel."""

from __future__ import annotations

import numpy as np
from job import Job, main
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands out one image after the other."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._images = iter(np.load(job.pixels, "r"))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image, (1, C, H, W) float32."""
        image = next(self._images, None)
        if image is None:
            return None
        tensor = ((image / 255 - self._job.mean) / self._job.std).transpose(2, 0, 1)[None]
        return {"input": tensor.astype(np.float32)}


def quantize(job: Job) -> None:
    """Write one Q/DQ graph."""
    prepared, path = job.out / "prepared.onnx", job.out / "model.onnx"
    symmetric, method = job.options["symmetric"], job.options["method"]
    extra = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "CalibTensorRangeSymmetric": symmetric,
    }
    if method == "Percentile":
        extra["CalibPercentile"] = job.options["percentile"]
    with job.stage("quantize"):
        quant_pre_process(job.onnx, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, path, Reader(job), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method], extra_options=extra,
        )  # fmt: skip
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
