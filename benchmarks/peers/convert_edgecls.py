"""Converts with edgecls: the stages of ``edgecls export --target raspberry-pi`` without checks."""

from __future__ import annotations

import hashlib

import numpy as np
from job import Job, main

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import place_qdq
from edgecls.export.passes import for_one_image, fuse
from edgecls.export.simplify import simplify
from edgecls.export.tflite import lower
from edgecls.export.torch_onnx import TorchToOnnx
from edgecls.models import load_model
from edgecls.targets.raspberry_pi import TARGET


def convert(job: Job) -> None:
    """Write one TFLite file."""
    with job.stage("load"):
        module = load_model(str(job.model)).module
    assert module is not None
    channels, height, width = job.size
    with job.stage("torch -> ONNX"):
        model = TorchToOnnx(input_size=(channels, height, width), fixed_batch=1)(module)
    with job.stage("simplify"):
        model = fuse(simplify(model))
    if job.precision == "int8":
        with job.stage("calibrate"):
            pixels = np.load(job.pixels)
            table = np.stack([(np.arange(256) / 255 - mean) / std
                              for mean, std in zip(job.mean, job.std, strict=True)])  # fmt: skip
            images = (
                (hashlib.sha256(image).hexdigest(), _normalize(image, table)) for image in pixels
            )
            ranges = collect_ranges(model, images, method="minmax", seed=0)
        with job.stage("quantize"):
            model = place_qdq(for_one_image(model), ranges, TARGET.scheme).model
    with job.stage("lower"):
        data = lower(model).data
    path = job.out / f"edgecls.{job.precision}.tflite"
    path.write_bytes(data)
    job.wrote(path)


def _normalize(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    planes = [table[channel][image[..., channel]] for channel in range(image.shape[-1])]
    return np.stack(planes)[None].astype(np.float32)


if __name__ == "__main__":
    main(convert)
