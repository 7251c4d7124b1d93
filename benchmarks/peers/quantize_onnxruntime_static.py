"""Quantizes a float ONNX graph with ONNX Runtime's ``quantize_static``, by any of its options."""

from __future__ import annotations

import onnx
from job import Job, main
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from quantize_onnxruntime import Reader


def quantize(job: Job) -> None:
    """Write one Q/DQ graph."""
    prepared, path = job.out / "prepared.onnx", job.out / "model.onnx"
    options = job.options
    with job.stage("quantize"):
        model = onnx.load(job.onnx)
        if model.opset_import[0].version != options["opset"]:
            model = onnx.version_converter.convert_version(model, options["opset"])
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, path, Reader(job), quant_format=QuantFormat.QDQ,
            activation_type=QuantType[options["activation"]],
            weight_type=QuantType[options["weight"]], per_channel=options["per_channel"],
            reduce_range=options["reduce_range"], op_types_to_quantize=options["operators"],
            extra_options=options["extra"],
        )  # fmt: skip
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
