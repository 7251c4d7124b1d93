"""What a search leaves: the best configuration, the table of trials, the plot of what mattered."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..core.files import atomic_file, write_atomic

CONFIG: Final = "edgecls.toml"
TRIALS: Final = "trials.csv"

if TYPE_CHECKING:
    from .train import TrainOptions
    from .tune import TrialRow


def write_config(file: Path, train: TrainOptions, params: dict[str, Any]) -> Path:
    """Write the TOML file that ``edgecls train -c`` takes, and return its path.

    Args:
        file: The file; paths in it are relative to its folder.
        train: The best training.
        params: Its trial's, by the names of the options.
    """
    settings = msgspec.to_builtins(train.settings)
    settings["lr"] = settings.pop("learning_rate")
    data = train.data
    table: dict[str, Any] = {
        "model": train.model,
        "data": _relative(data.path, file),
        "val": None if data.val is None else _relative(data.val, file),
        "val-share": data.val_share,
        "workers": data.workers,
        "cache-mb": data.cache_bytes // 1_000_000,
        "weights": None if train.weights is None else _relative(train.weights, file),
        "preprocess": _named(train.preprocess, file),
        "freeze": train.freeze,
        "device": train.device,
        "threads": train.threads,
        "augment": params.get("augment", train.data.augment_name),
        **{name.replace("_", "-"): value for name, value in settings.items()},
        "out": "best",
    }
    if "augment" not in params:
        table |= {"mixup": data.augment.mixup, "cutmix": data.augment.cutmix}
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items() if value is not None]
    write_atomic(file, "\n".join(["[train]", *lines, ""]).encode())
    return file


def trials_csv(rows: Sequence[TrialRow]) -> bytes:
    """Return a table of all trials, one a line."""
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "outcome", "top1", "epochs", *names])
    for row in rows:
        values = [row.params.get(name) for name in names]
        writer.writerow([row.number, row.outcome, row.top1, row.epochs, *values])
    return text.getvalue().encode()


def plot(rows: Sequence[TrialRow], importance: dict[str, float] | None, file: Path) -> None:
    """Plot what mattered, and each trial's top-1 against each hyperparameter (PNG)."""
    from matplotlib.figure import Figure

    names = list(importance or dict.fromkeys(name for row in rows for name in row.params))
    figure = Figure(figsize=(3.2 * (len(names) + 1), 3.2), layout="constrained")
    first, *others = figure.subplots(1, len(names) + 1)
    if importance is None:
        first.text(0.5, 0.5, "too few trials\nto tell", ha="center", va="center")
        first.set_axis_off()
    else:
        first.barh(names[::-1], [importance[name] for name in names[::-1]], color="tab:blue")
        first.set_xlabel("share of what mattered")
    judged = [row for row in rows if row.top1 is not None]
    for axis, name in zip(others, names, strict=True):
        for outcome, marker in (("done", "o"), ("pruned", "x"), ("diverged", "^")):
            chosen = [row for row in judged if row.outcome == outcome]
            values = [row.params[name] for row in chosen]
            shown = [str(value) for value in values] if name in {"augment", "batch"} else values
            axis.scatter(shown, [row.top1 for row in chosen], marker=marker, s=18, label=outcome)
        if name in {"lr", "weight-decay"}:
            axis.set_xscale("log")
        axis.set_xlabel(name)
    others[0].set_ylabel("top-1, %")
    others[0].legend(fontsize="small")
    with atomic_file(file) as stream:
        figure.savefig(stream, format="png", dpi=120)


def _relative(path: Path, file: Path) -> str:
    return os.path.relpath(path.resolve(), file.parent.resolve())


def _named(preprocess: str | None, file: Path) -> str | None:
    """Return a preset's name as it is, a file's path from the configuration."""
    named = preprocess is not None and Path(preprocess).is_file()
    return _relative(Path(str(preprocess)), file) if named else preprocess
