"""Quantizes a torch module with Brevitas, and exports it with ``export_onnx_qcdq``."""

from __future__ import annotations

import brevitas.nn as qnn
import brevitas.quant as schemes
import torch
from brevitas.export import export_onnx_qcdq
from brevitas.graph.calibrate import calibration_mode
from cifar import images, network
from job import Job, main
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold(module: nn.Module) -> None:
    """Fold batch norm into the convolution before it, as one does before quantizing."""
    children = dict(module.named_children())
    for name, child in children.items():
        norm = name.replace("conv", "bn")
        if isinstance(child, nn.Conv2d) and isinstance(children.get(norm), nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child, children[norm]))
            setattr(module, norm, nn.Identity())
        else:
            fold(child)


def replace(module: nn.Module, scheme: dict[str, object]) -> None:
    """Put Brevitas's layers in the places of torch's."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            layer: nn.Module = qnn.QuantConv2d(
                child.in_channels, child.out_channels, child.kernel_size, child.stride,
                child.padding, bias=True, **scheme,
            )  # fmt: skip
        elif isinstance(child, nn.Linear):
            layer = qnn.QuantLinear(child.in_features, child.out_features, bias=True, **scheme)
        else:
            replace(child, scheme)
            continue
        layer.weight.data, layer.bias.data = child.weight.data, child.bias.data
        setattr(module, name, layer)


def quantize(job: Job) -> None:
    """Write one Q/DQ graph."""
    module, calibration = network(job), images(job)
    scheme = {
        place: name and getattr(schemes, name) for place, name in job.options["scheme"].items()
    }
    with job.stage("quantize"):
        fold(module)
        replace(module, scheme)
        module.eval()
        with torch.no_grad(), calibration_mode(module):
            module(calibration)
        module.eval()
        path = job.out / "model.onnx"
        export_onnx_qcdq(
            module, args=calibration[:1], export_path=str(path), opset_version=17, dynamo=False
        )
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
