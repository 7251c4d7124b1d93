"""The options of a training, which `train`, `tune`, `prune`, `distill` and `qat` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from ..training import Settings
    from ..workflows.train import TrainOptions
    from ..workflows.training_data import DataChoice

F = TypeVar("F", bound=Callable[..., Any])

# Of training/settings.py, whose import brings torch.
OPTIMIZERS: Final = ("sgd", "adam", "adamw")
SCHEDULES: Final = ("one-cycle", "cosine", "step", "constant")
AUGMENTS: Final = ("none", "shift", "light", "standard", "strong")

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_STARTS: Final = ("weights", "preprocess", "freeze", "device", "threads")
_DATA: Final = click.Path(exists=True, path_type=Path)


def data_options(function: F) -> F:
    """Add what says which images are learned from."""
    return _with(
        function,
        click.option("--data", type=_DATA, required=True, help="Images by class, CIFAR or MNIST."),
        click.option("--val", type=_DATA, help="Images to judge each epoch by."),
        click.option(
            "--val-share", type=float, default=0.1, show_default=True,
            help="Without --val: this share of the images judges instead; 0 judges nothing.",
        ),
        click.option(
            "--augment", type=click.Choice(AUGMENTS), default="light", show_default=True,
            help="Random changes to images: light crops and flips, shift only crops.",
        ),
        click.option("--mixup", type=float, help="Alpha of mixup."),
        click.option("--cutmix", type=float, help="Alpha of CutMix."),
        click.option(
            "--workers", type=click.IntRange(1, 256), default=2, show_default=True,
            help="Threads that decode.",
        ),
        click.option(
            "--cache-mb", type=click.IntRange(0), default=1000, show_default=True,
            help="Memory for decoded images.",
        ),
    )  # fmt: skip


def settings_options(function: F) -> F:
    """Add the hyperparameters."""
    return _with(
        function,
        click.option("--epochs", type=int, required=True, help="How often each image is seen."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
        click.option("--batch", type=int, default=32, show_default=True, help="Of all processes."),
        click.option(
            "--optimizer", type=click.Choice(OPTIMIZERS), default="sgd", show_default=True
        ),
        click.option(
            "--lr", "learning_rate", type=float,
            help="The schedule's peak. Default: 0.05 for sgd, 0.001 for the others.",
        ),
        click.option("--momentum", type=float, default=0.9, show_default=True, help="Of sgd."),
        click.option("--weight-decay", type=float, default=5e-4, show_default=True),
        click.option(
            "--schedule", type=click.Choice(SCHEDULES), default="one-cycle", show_default=True
        ),
        click.option(
            "--warmup", type=float, metavar="EPOCHS",
            help="In which the rate rises. Default: 30 % of one cycle, else none.",
        ),
        click.option("--label-smoothing", type=float, default=0.1, show_default=True),
        click.option("--ema", type=float, metavar="DECAY", help="Average the weights, e.g. 0.999."),
        click.option("--clip-norm", type=float, help="The largest norm of the gradients."),
        click.option("--patience", type=int, help="Stop after so many epochs without a best one."),
        click.option("--amp/--no-amp", default=True, help="Compute in 16 bits where on a GPU."),
    )  # fmt: skip


def model_options(function: F) -> F:
    """Add what the training starts from and runs on."""
    return _with(
        function,
        click.option("--weights", type=_FILE, help="Start from these; the head may differ."),
        click.option("--freeze", metavar="backbone|PATTERN", help="What does not learn."),
        click.option("--preprocess", metavar="NAME|FILE", help="A preset or a TOML file."),
        click.option(
            "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
            show_default=True,
        ),
        click.option(
            "--threads", type=click.IntRange(1, 256),
            help="CPU threads. Small networks are fastest with 1. Default: torch's choice.",
        ),
    )  # fmt: skip


def run_options(function: F) -> F:
    """Add what says how it is run, and where it writes."""
    return _with(
        function,
        click.option("--resume", is_flag=True, help="Go on where OUT's work stopped, if it did."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option("-o", "--out", type=_FOLDER, required=True),
        click.option("--json", "as_json", is_flag=True, help="Machine-readable output."),
    )  # fmt: skip


def train_options(model: str, out: Path, options: dict[str, Any]) -> TrainOptions:
    """Return the training that was chosen.

    Raises:
        UsageError: A number is outside its range.
    """
    from ..training import Settings
    from ..workflows.train import TrainOptions

    return TrainOptions(
        model=model, out=out, data=_data_choice(options),
        settings=Settings(**{name: options[name] for name in Settings.__struct_fields__}),
        **{name: options[name] for name in _STARTS},
    )  # fmt: skip


def gently(settings: Settings, share: float) -> Settings:
    """Return settings whose learning rate, where none was given, is a share of the default."""
    import msgspec

    if settings.learning_rate is not None:
        return settings
    return msgspec.structs.replace(settings, learning_rate=share * settings.peak)


def _data_choice(options: dict[str, Any]) -> DataChoice:
    import msgspec

    from ..core.errors import UsageError
    from ..data.augment import resolve_augment
    from ..workflows.training_data import DataChoice

    mixed = {name: options[name] for name in ("mixup", "cutmix") if options[name] is not None}
    try:
        augment = msgspec.structs.replace(resolve_augment(options["augment"]), **mixed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return DataChoice(
        path=options["data"], val=options["val"], val_share=options["val_share"], augment=augment,
        augment_name=options["augment"],
        workers=options["workers"], cache_bytes=options["cache_mb"] * 1_000_000,
    )  # fmt: skip


def _with(function: F, *options: Callable[[F], F]) -> F:
    for option in reversed(options):
        function = option(function)
    return function
