"""The lowering: an ONNX graph becomes a TFLite file."""

from .convert import TfliteModel, lower
from .lowering import FloatWeights
from .metadata import add_metadata
from .phones import for_phones
from .probe import try_in_subprocess

__all__ = [
    "FloatWeights",
    "TfliteModel",
    "add_metadata",
    "for_phones",
    "lower",
    "try_in_subprocess",
]
