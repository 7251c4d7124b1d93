"""Quantizes a torch module with NVIDIA's modelopt, and exports it with the TorchScript exporter."""

from __future__ import annotations

import modelopt.torch.quantization as mtq
import torch
from cifar import export, images, network
from job import Job, main


def quantize(job: Job) -> None:
    """Write one Q/DQ graph."""
    module, calibration = network(job), images(job)

    def forward(model: torch.nn.Module) -> None:
        for part in calibration.split(8):
            model(part)

    with job.stage("quantize"):
        module = mtq.quantize(module, mtq.INT8_DEFAULT_CFG, forward_loop=forward)
        path = job.out / "model.onnx"
        export(module, calibration[:1], path)
    job.wrote(path)


if __name__ == "__main__":
    main(quantize)
