"""Converts with litert-torch; int8 with ai-edge-quantizer's static recipe.

Images go in as (N, H, W, C), as with the others (``to_channel_last_io``). The quantizer's
documented ``calibrate`` takes a moving average of the ranges; its calibrator also takes a rule, and
min-max is one that it ships: both are made.
"""

from __future__ import annotations

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import calibrator, quantizer, recipe
from ai_edge_quantizer.utils import qsv_utils
from job import Job, main


def convert(job: Job) -> None:
    """Write one float file or, calibrated in two ways, two int8 files."""
    channels, height, width = job.size
    with job.stage("load"):
        module = torch.export.load(job.model).module()
    path = job.out / "litert_torch.fp32.tflite"
    with job.stage("torch -> TFLite"):
        module = litert_torch.to_channel_last_io(module, args=[0])
        sample = torch.zeros(1, height, width, channels)
        litert_torch.convert(module, (sample,)).export(str(path))
    if job.precision == "fp32":
        job.wrote(path)
        return
    for variant in ("", "min-max ranges"):
        with job.attempt(variant):
            quantize(job, str(path), variant)


def quantize(job: Job, path: str, variant: str) -> None:
    """Write one int8 file."""
    tool = quantizer.Quantizer(path, recipe.static_wi8_ai8())
    ((key, signature),) = Interpreter(model_path=path).get_signature_list().items()
    (argument,) = signature["inputs"]
    images = (np.load(job.pixels) / 255 - job.mean) / job.std
    data = {key: [{argument: image[None].astype(np.float32)} for image in images]}
    calibrate, emit = f"calibrate {variant}".strip(), f"quantize {variant}".strip()
    with job.stage(calibrate):
        if variant:
            rule = calibrator.Calibrator(
                tool._float_model_buffer, qsv_update_func=qsv_utils.min_max_update
            )
            rule.calibrate(data, tool._recipe_manager)
            found = rule.get_model_qsvs()
        else:
            found = tool.calibrate(data)
    out = job.out / f"litert_torch.int8.{'min-max' if variant else 'default'}.tflite"
    with job.stage(emit):
        tool.quantize(found).export_model(str(out), overwrite=True)
    stages = ("load", "torch -> TFLite", calibrate, emit)
    job.wrote(out, variant=variant, stages=stages)


if __name__ == "__main__":
    main(convert)
