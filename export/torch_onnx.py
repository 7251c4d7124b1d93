"""torch -> ONNX through the dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import onnx
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.errors import ModelError

# ONNX Runtime 1.31 refuses QAT graphs of opset 21, FP16 scales came with 19.
OPSET: Final = 20

# The colours of a terminal, in torch's messages.
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchToOnnx:
    """Exports a classifier.

    Attributes:
        input_size: (channels, height, width) of one image.
        fixed_batch: The only batch that the module takes; None leaves the batch axis free.
    """

    input_size: tuple[int, int, int]
    fixed_batch: int | None = None

    def __call__(self, module: torch.nn.Module) -> onnx.ModelProto:
        """Return the ONNX graph of a module in evaluation mode: input "input", output "logits".

        Raises:
            ModelError: The module cannot be exported, or is no image classifier.
        """
        image = torch.zeros(self.fixed_batch or 2, *self.input_size)
        try:
            with torch.inference_mode():
                output = module(image)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise ModelError(
                f"the model does not take images of shape {self.input_size} (channels, height, "
                f"width): {_first_line(error)}; set the size with --preprocess"
            ) from error
        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            found = (
                tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            )
            raise ModelError(f"expected logits of shape (batch, classes), found {found}")
        # Attention as products and a softmax: the strides of fused kernels' outputs, which the
        # graph that torch captures relies on, are not those of what the exporter makes of them.
        with _quiet(), sdpa_kernel(SDPBackend.MATH):
            try:
                program = torch.onnx.export(
                    module,
                    (image,),
                    input_names=["input"],
                    output_names=["logits"],
                    dynamo=True,
                    dynamic_shapes=None if self.fixed_batch else ({0: torch.export.Dim("batch")},),
                    opset_version=OPSET,
                    verbose=False,
                )
            except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
                raise ModelError(f"torch cannot export the model: {_first_line(error)}") from error
        assert program is not None
        return program.model_proto


def _first_line(error: BaseException) -> str:
    text = _ESCAPES.sub("", str(error)).strip() or type(error).__name__
    return text.splitlines()[0].removesuffix("Next steps:").strip()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter logs and warns of its own internals off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
