"""Puts torch.ao's FakeQuantize on layers' inputs and weights, as training does (QAT).

Batch norm stays apart, so the graph has it behind the quantized weights.
"""

from __future__ import annotations

import torch
from cifar import export, images, network
from job import Job, main
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    MinMaxObserver,
    PerChannelMinMaxObserver,
    disable_observer,
)


class Quantized(nn.Module):
    """A convolution or a linear layer with both operands quantized."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, *, symmetric: bool) -> None:
        super().__init__()
        self.layer = layer
        self.input = FakeQuantize(
            MinMaxObserver,
            quant_min=-128 if symmetric else 0,
            quant_max=127 if symmetric else 255,
            dtype=torch.qint8 if symmetric else torch.quint8,
            qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
        )
        # The exporter takes nothing narrower than -128..127.
        self.weight = FakeQuantize(
            PerChannelMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric, ch_axis=0,
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for a batch."""
        x, weight, layer = self.input(x), self.weight(self.layer.weight), self.layer
        if isinstance(layer, nn.Conv2d):
            return nn.functional.conv2d(x, weight, layer.bias, layer.stride, layer.padding)
        return nn.functional.linear(x, weight, layer.bias)


def replace(module: nn.Module, *, symmetric: bool) -> None:
    """Put ``Quantized`` around every layer that has weights."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d | nn.Linear):
            setattr(module, name, Quantized(child, symmetric=symmetric))
        else:
            replace(child, symmetric=symmetric)


def quantize(job: Job) -> None:
    """Write one Q/DQ graph."""
    module, calibration = network(job), images(job)
    with job.stage("quantize"):
        replace(module, symmetric=job.options["symmetric"])
        with torch.no_grad():
            module(calibration)
        module.apply(disable_observer)
        module.eval()
        path = job.out / "model.onnx"
        export(module, calibration[:1], path)
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
