"""The training loop."""

from .loop import TrainingResult, evaluate_classifier, save_weights, train_classifier

__all__ = ["TrainingResult", "evaluate_classifier", "save_weights", "train_classifier"]
