"""Where a model comes from: zoos, files and your own code, with checkpoints loaded safely."""

from .load import load_model
from .loaded import LoadedModel

__all__ = ["LoadedModel", "load_model"]
