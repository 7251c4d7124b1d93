"""Quantizes a float ONNX graph with NVIDIA's modelopt, on the CPU.

What is not quantized stays float32 (its default is FP16), as it does in the graphs it is compared
with.
"""

from __future__ import annotations

import numpy as np
from job import Job, main
from modelopt.onnx.quantization import quantize as modelopt_quantize


def quantize(job: Job) -> None:
    """Write one Q/DQ graph."""
    path = job.out / "model.onnx"
    with job.stage("quantize"):
        images = [
            ((image / 255 - job.mean) / job.std).transpose(2, 0, 1).astype(np.float32)
            for image in np.load(job.pixels, "r")
        ]
        modelopt_quantize(
            str(job.onnx), quantize_mode="int8", calibration_data={"input": np.stack(images)},
            calibration_method=job.options["method"], calibration_eps=["cpu"],
            high_precision_dtype="fp32", output_path=str(path),
        )  # fmt: skip
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
