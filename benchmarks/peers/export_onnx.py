"""Exports the ONNX file that onnx2tf takes, with torch's own exporter and its defaults."""

from __future__ import annotations

import torch
from job import Job, main


def export(job: Job) -> None:
    """Write the ONNX file."""
    with job.stage("load"):
        module = torch.export.load(job.model).module()
    with job.stage("torch -> ONNX"):
        torch.onnx.export(
            module, (torch.zeros(1, *job.size),), job.onnx, input_names=["input"],
            output_names=["logits"], dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    job.wrote(job.onnx)


if __name__ == "__main__":
    main(export)
