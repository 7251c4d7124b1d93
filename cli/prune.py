"""``edgecls prune``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, get_args

import click

from ..core.values import Precision
from ..targets import TARGETS
from .config import config_option
from .options import workstation
from .text import print_json
from .training_options import (
    data_options,
    gently,
    model_options,
    run_options,
    settings_options,
    train_options,
)

if TYPE_CHECKING:
    from ..workflows.prune import PrunePlan, PruneResult
    from ..workflows.prune_files import StepRow
    from ..workflows.prune_setup import PruneOptions

# Of compress/, whose import brings torch.
_METHODS: Final = ("global", "layer", "structured", "soft", "2:4")
_IMPORTANCES: Final = ("magnitude", "taylor", "activation")
_ALLOTMENTS: Final = ("even", "ranked")
# What has learned needs smaller steps than what has not.
_GENTLE: Final = 0.2


@click.command()
@config_option
@click.argument("model")
@data_options
@settings_options
@model_options
@click.option(
    "--until", metavar="GOAL",
    help="params=0.5x, macs=20M, size=100kB, or latency=0.6x, which is measured.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(_METHODS), default="structured", show_default=True,
    help="structured and soft take channels out; the others set weights to zero.",
)  # fmt: skip
@click.option(
    "--importance", type=click.Choice(_IMPORTANCES), default="magnitude", show_default=True,
    help="What ranks channels or weights.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1, 100), default=1, show_default=True,
    help="Prune so often, and train for --epochs after each.",
)  # fmt: skip
@click.option(
    "--round-to", type=click.IntRange(1, 128), default=8, show_default=True,
    help="Widths are multiples of it: odd ones are no faster.",
)  # fmt: skip
@click.option(
    "--allotment", type=click.Choice(_ALLOTMENTS), default="even", show_default=True,
    help="Every layer loses the same share, or all are ranked together.",
)  # fmt: skip
@click.option(
    "--target", type=click.Choice(tuple(TARGETS)), default="raspberry-pi", show_default=True,
    help="Whose file is made after each step, weighed, and timed on this machine.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(get_args(Precision)), default="int8", show_default=True,
    help="Of that file.",
)  # fmt: skip
@run_options
def command(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Make MODEL smaller or faster, and train it again: OUT is a model with narrower layers.

    MODEL is what `edgecls train` takes, with --weights, or a folder that it wrote. The learning
    rate's default is a fifth of `edgecls train`'s. --epochs are those after each step; 0 trains
    nothing. A goal that is missed is left under OUT.failing.
    """
    with workstation():
        from ..workflows.prune import plan, prune
    from .show import TerminalProgress

    chosen, until = prune_options(options), options["until"]
    progress = TerminalProgress(quiet=as_json)
    if dry_run:
        _show_plan(plan(chosen, progress), as_json)
        return
    result = prune(chosen, progress, None if as_json else _Table())
    _show_result(result, until, as_json)


def prune_options(options: dict[str, Any]) -> PruneOptions:
    """Return the pruning that the command's options choose.

    Raises:
        UsageError: A number is outside its range.
    """
    from ..workflows.prune_setup import PruneOptions

    epochs = options["epochs"]
    train = train_options(options["model"], options["out"], {**options, "epochs": max(1, epochs)})
    return PruneOptions(
        train=replace(train, settings=gently(train.settings, _GENTLE), resume=options["resume"]),
        epochs=max(0, epochs),
        **{
            name: options[name]
            for name in (
                "until", "method", "importance", "steps", "round_to", "allotment", "target",
                "precision",
            )
        },
    )  # fmt: skip


def _show_plan(plan: PrunePlan, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    click.echo(f"{plan.parameters:,} parameters, {plan.macs / 1e6:.1f} M MACs")
    click.echo(f"{plan.images:,} images to learn from, {plan.judged:,} to judge by")
    click.echo(f"{plan.steps} step(s) with {plan.epochs} epoch(s) after each")
    decided = plan.decided
    if decided is None:
        click.echo("how much goes is found by exporting and measuring narrower models first")
        return
    if decided.zeros:
        click.echo(f"{decided.zeros:,} weights become zero")
    for name, width in decided.begin.items():
        click.echo(f"{name}: {width} -> {decided.end[name]} channels")
    if not decided.reachable:
        click.echo("the goal cannot be reached: this is the most that can go")


class _Table:
    """Prints each step's row as soon as it is known."""

    _HEAD: Final = (
        f"{'step':>4} {'parameters':>12} {'not zero':>12} {'MACs':>9} {'file':>9}  "
        f"{'top-1, % (95 %)':<21} {'predicted':>9}  measured speed-up (95 %)"
    )

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, row: StepRow) -> None:
        """Print a row; before the first, the head."""
        from .show import human_bytes

        if not self._begun:
            self._begun = True
            click.echo(self._HEAD)
        top1 = (
            "nobody judged"
            if row.top1 is None
            else f"{row.top1:.2f} ({row.top1_low:.1f}..{row.top1_high:.1f})"
        )
        measured = (
            "-"
            if row.speedup is None
            else f"{row.speedup:.2f}x ({row.speedup_low:.2f}..{row.speedup_high:.2f})"
        )
        click.echo(
            f"{row.step:>4} {row.parameters:>12,} {row.nonzero:>12,} {row.macs / 1e6:>7.1f} M "
            f"{human_bytes(row.size_bytes):>9}  {top1:<21} {row.predicted_speedup:>8.2f}x  "
            f"{measured}"
        )


def _show_result(result: PruneResult, until: str | None, as_json: bool) -> None:
    from ..core.errors import CheckFailedError

    if as_json:
        print_json(
            {"out": str(result.out), "reached": result.reached, "goal": until,
             "missed": result.missed, "steps": result.rows, "record": result.record}
        )  # fmt: skip
    if result.missed is not None:
        raise CheckFailedError(
            f"--until {until} is not reached: found {result.missed}; the best is kept as "
            f"{result.out}"
        )
    if not as_json:
        click.echo(f"\n{result.out}: measured here, one image on one thread, not on the device")
        click.echo(f"Try: edgecls export {result.out} --target raspberry-pi --calib DIR -o bundles")
