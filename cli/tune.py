"""``edgecls tune``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .config import config_option
from .options import workstation
from .text import print_json
from .training_options import data_options, model_options, settings_options, train_options

if TYPE_CHECKING:
    from ..workflows.tune import TrialRow, TuneResult

# Of workflows/tune.py, whose import brings torch.
_SEARCHED: Final = ("lr", "batch", "weight-decay", "label-smoothing", "augment")
_PRUNERS: Final = ("median", "hyperband", "none")


@click.command()
@config_option
@click.argument("model")
@data_options
@settings_options
@model_options
@click.option("--trials", type=click.IntRange(1), required=True, help="With those it has already.")
@click.option(
    "--study", type=click.Path(dir_okay=False, path_type=Path), required=True,
    help="The search's file; one that exists goes on.",
)  # fmt: skip
@click.option("--search", type=click.Choice(_SEARCHED), multiple=True, help="Repeat. Default: all.")
@click.option(
    "--pruner", type=click.Choice(_PRUNERS), default="median", show_default=True,
    help="Ends trials that are worse than others were.",
)  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    model: str, trials: int, study: Path, search: tuple[Any, ...], pruner: Any, out: Path,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Search for the hyperparameters with which MODEL learns best.

    OUT/edgecls.toml is the best training, for `edgecls train -c`; OUT/importance.png shows what
    mattered. The best of many trials is a little lucky: judge it on images that chose nothing.
    """
    with workstation():
        from ..workflows.tune import SEARCHED, TuneOptions, tune
    from .show import TerminalProgress

    chosen = TuneOptions(
        train=train_options(model, out, options),
        trials=trials,
        study=study,
        search=search or SEARCHED,
        pruner=pruner,
    )
    result = tune(chosen, TerminalProgress(quiet=as_json), None if as_json else _show)
    if as_json:
        print_json(dataclasses.asdict(result) | {"config": str(result.config)})
    else:
        _print(result)


def _show(row: TrialRow) -> None:
    found = "diverged" if row.top1 is None else f"top-1 {row.top1:6.2f} %"
    end = "" if row.outcome == "done" else f"  {row.outcome} after epoch {row.epochs}"
    click.echo(f"trial {row.number:>3}  {found}{end}  {_described(row)}")


def _described(row: TrialRow) -> str:
    return "  ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.params.items()
    )


def _print(result: TuneResult) -> None:
    best = result.best
    click.echo(f"\nbest: trial {best.number}, top-1 {best.top1:.2f} %: {_described(best)}")
    if result.importance is not None:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in result.importance.items())
        click.echo(f"what mattered: {shares}")
    click.echo(f"Try: edgecls train -c {result.config}")
