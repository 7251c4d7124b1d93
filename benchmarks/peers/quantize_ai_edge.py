"""Quantizes litert-torch's float file with ai-edge-quantizer's static recipe.

Its documented ``calibrate`` takes a moving average of the ranges; its calibrator also takes a rule,
and min-max is one that it ships.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import calibrator, quantizer, recipe
from ai_edge_quantizer.utils import qsv_utils
from job import Job, main


def quantize(job: Job) -> None:
    """Write one int8 file."""
    source, path = job.options["float"], job.out / "model.tflite"
    with job.stage("quantize"):
        tool = quantizer.Quantizer(source, recipe.static_wi8_ai8())
        ((key, signature),) = Interpreter(model_path=source).get_signature_list().items()
        (argument,) = signature["inputs"]
        data = {
            key: [
                {argument: ((image / 255 - job.mean) / job.std)[None].astype(np.float32)}
                for image in np.load(job.pixels, "r")
            ]
        }
        if job.options["method"] == "min-max":
            rule = calibrator.Calibrator(
                tool._float_model_buffer, qsv_update_func=qsv_utils.min_max_update
            )
            rule.calibrate(data, tool._recipe_manager)
            found = rule.get_model_qsvs()
        else:
            found = tool.calibrate(data)
        tool.quantize(found).export_model(str(path), overwrite=True)
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
