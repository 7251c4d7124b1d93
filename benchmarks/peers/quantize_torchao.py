"""Quantizes a torch program with torchao's PT2E, and exports it with torch's dynamo exporter."""

from __future__ import annotations

import torch
from cifar import images
from job import Job, main
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationSpec
from torchao.testing.pt2e._xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torchao.testing.pt2e._xnnpack_quantizer_utils import QuantizationConfig


def symmetric_config() -> QuantizationConfig:
    """Return symmetric int8 for activations too, with code -128."""
    activation = QuantizationSpec(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_symmetric,
        observer_or_fake_quant_ctr=MinMaxObserver,
    )  # fmt: skip
    weight = QuantizationSpec(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_channel_symmetric,
        ch_axis=0, observer_or_fake_quant_ctr=PerChannelMinMaxObserver,
    )  # fmt: skip
    return QuantizationConfig(activation, activation, weight, None)


def quantize(job: Job) -> None:
    """Write one Q/DQ graph."""
    program = torch.export.load(job.model).module()
    config = (
        symmetric_config()
        if job.options["symmetric"]
        else get_symmetric_quantization_config(is_per_channel=True)
    )
    with job.stage("quantize"):
        module = prepare_pt2e(program, XNNPACKQuantizer().set_global(config))
        with torch.no_grad():
            for image in images(job):
                module(image[None])
        module = convert_pt2e(module)
        path = job.out / "model.onnx"
        torch.onnx.export(
            module, (torch.zeros(1, *job.size),), path, dynamo=True, opset_version=20,
            verbose=False,
        )  # fmt: skip
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
