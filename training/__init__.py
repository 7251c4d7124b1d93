"""The training loop."""

from .batches import in_memory
from .checkpoint import save_weights
from .evaluation import evaluate
from .history import Epoch
from .loop import Fit
from .settings import Settings

__all__ = ["Epoch", "Fit", "Settings", "evaluate", "in_memory", "save_weights"]
