"""The lowering: an ONNX graph becomes a TFLite file."""

from .convert import TfliteModel, lower
from .probe import try_in_subprocess

__all__ = ["TfliteModel", "lower", "try_in_subprocess"]
