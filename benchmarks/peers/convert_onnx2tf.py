"""Converts with onnx2tf, through the backend that the job names.

``flatbuffer_direct`` is its default; ``tf_converter`` goes through TensorFlow. int8 as its manual
says: ``-oiqt`` with images in 0..1, mean and std. Weights are quantized per channel, its default;
where that fails, per tensor too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx2tf
from job import Job, main


def convert(job: Job) -> None:
    """Write one float file, or one int8 file with int8 inputs and outputs."""
    backend = job.options["backend"]
    if job.precision == "fp32":
        path = _run(job, backend, "float32", {})
        job.wrote(path)
        return
    images = job.out / "calibration.npy"
    np.save(images, np.load(job.pixels).astype(np.float32) / 255)
    named = ["input", str(images), np.float32([[[job.mean]]]), np.float32([[[job.std]]])]
    for quant_type in ("per-channel", "per-tensor"):
        options = {
            "output_integer_quantized_tflite": True,
            "custom_input_op_name_np_data_path": [named],
            "quant_type": quant_type,
        }
        variant = "" if quant_type == "per-channel" else quant_type
        with job.attempt(variant):
            path = _run(job, backend, "full_integer_quant", options)
            job.wrote(path, variant=variant, stages=[f"ONNX -> TFLite {backend} {quant_type}"])
            return


def _run(job: Job, backend: str, kind: str, options: dict[str, object]) -> Path:
    """Return the file of one kind that a run makes, also where it fails on another kind."""
    quant_type = options.get("quant_type", "")
    folder = job.out / f"{backend}.{quant_type or 'float'}"
    path = folder / f"{job.onnx.stem}_{kind}.tflite"
    with job.stage(f"ONNX -> TFLite {backend} {quant_type}".strip()):
        try:
            onnx2tf.convert(
                input_onnx_file_path=str(job.onnx), output_folder_path=str(folder),
                tflite_backend=backend, verbosity="error", **options,
            )  # fmt: skip
        except (Exception, SystemExit):
            # It writes int16 activations too, after the int8 file: that may fail alone.
            if not path.is_file():
                raise
    return path


if __name__ == "__main__":
    main(convert)
