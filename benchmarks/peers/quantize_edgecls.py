"""Quantizes a float ONNX graph with edgecls: one pass, then the scheme of a target."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
from job import Job, main

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import place_qdq
from edgecls.export.passes import for_one_image
from edgecls.export.tflite import lower
from edgecls.targets import get_target


def quantize(job: Job) -> None:
    """Write what the target takes: a Q/DQ graph or a TFLite file."""
    target = get_target(job.options["target"])
    with job.stage("quantize"):
        model = onnx.load(job.onnx)
        images = (
            (
                hashlib.sha256(image).hexdigest(),
                ((image / 255 - job.mean) / job.std).transpose(2, 0, 1)[None].astype(np.float32),
            )
            for image in np.load(job.pixels, "r")
        )
        ranges = collect_ranges(model, images, method=job.options["method"], seed=0)
        graph = for_one_image(model) if target.scheme.placement == "full" else model
        model = place_qdq(graph, ranges, target.scheme).model
        path = job.out / ("model.tflite" if target.ships == "tflite" else "model.onnx")
        data = lower(model).data if target.ships == "tflite" else model.SerializeToString()
        path.write_bytes(data)
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
