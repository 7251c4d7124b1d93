"""``edgecls qat``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..core.ranges import METHODS
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
from .training_show import (
    accuracy_text,
    difference_text,
    print_epoch,
    print_images_and_steps,
)

if TYPE_CHECKING:
    from ..workflows.qat import Judged, QatPlan, QatResult
    from ..workflows.qat_setup import QatOptions

# What has learned needs smaller steps than what has not, and codes smaller ones than numbers.
_GENTLE: Final = 0.1
_TEMPERATURE: Final = 4.0


@click.command()
@config_option
@click.argument("model")
@data_options
@settings_options
@model_options
@click.option(
    "--target", "targets", type=click.Choice(tuple(TARGETS)), multiple=True, required=True,
    help="The first one's scheme is trained; others get the same ranges, and are judged too.",
)  # fmt: skip
@click.option(
    "--calib", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Images that give the first ranges. Default: some of those to learn from.",
)  # fmt: skip
@click.option(
    "--calib-images", type=click.IntRange(1), default=100, show_default=True, help="How many."
)
@click.option(
    "--calib-table", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A table of edgecls calibrate with the first ranges.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(METHODS), default="minmax", show_default=True,
    help="How images give ranges.",
)  # fmt: skip
@click.option(
    "--teacher-alpha", type=float, default=0.0, show_default=True,
    help="The part of the loss that is the float model's answers; 0 learns from the labels alone.",
)  # fmt: skip
@click.option(
    "--temperature", type=float,
    help="Divides both models' logits, where the float model teaches. Default: 4.",
)  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Write OUT/tensorboard too.")
@run_options
def command(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Train MODEL with the codes of a target: OUT is a model that export takes with its scales.

    MODEL is whatever `edgecls export` takes, with trained weights. The learning rate's default is a
    tenth of `edgecls train`'s. OUT needs no images to be exported: its ranges were trained.
    """
    with workstation():
        from ..workflows.qat import plan, qat
    from .show import TerminalProgress

    chosen = qat_options(options)
    progress = TerminalProgress(quiet=as_json)
    if dry_run:
        _show_plan(plan(chosen, progress), as_json)
        return
    result = qat(chosen, progress, None if as_json else print_epoch)
    if result.leads:
        _show_result(result, chosen.train.out, as_json)


def qat_options(options: dict[str, Any]) -> QatOptions:
    """Return the training that the command's options choose.

    Raises:
        UsageError: A number is outside its range, or --temperature has nothing to divide.
    """
    from ..compress.distillation import Lesson
    from ..core.errors import UsageError
    from ..workflows.qat_setup import QatOptions

    train = train_options(options["model"], options["out"], options)
    settings = gently(train.settings, _GENTLE)
    lesson, temperature = None, options["temperature"]
    if options["teacher_alpha"]:
        lesson = Lesson(
            temperature=_TEMPERATURE if temperature is None else temperature,
            alpha=options["teacher_alpha"], label_smoothing=settings.label_smoothing,
        )  # fmt: skip
    elif temperature is not None:
        raise UsageError("--temperature divides a teacher's logits: give --teacher-alpha too")
    return QatOptions(
        train=replace(
            train, settings=settings, tensorboard=options["tensorboard"], resume=options["resume"]
        ),
        lesson=lesson,
        **{
            name: options[name]
            for name in ("targets", "calib", "calib_images", "calib_table", "method")
        },
    )  # fmt: skip


def _show_plan(plan: QatPlan, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    training = plan.training
    also = f"; {', '.join(plan.also)}: the same ranges" if plan.also else ""
    click.echo(f"plan:     {plan.target}'s{also}")
    click.echo(
        f"learns:   {training.parameters:,} numbers, of which {plan.points} are scales; "
        f"{plan.layers} layers have weights as codes"
    )
    print_images_and_steps(training)


def _show_result(result: QatResult, out: Path, as_json: bool) -> None:
    if as_json:
        print_json({"out": str(out), "rows": result.rows, "record": result.record})
        return
    trained = result.record.quantized
    assert trained is not None
    if result.rows:
        click.echo(f"\n{'':<24} {'top-1, % (95 %)':<22} QAT is better by (95 %)")
        for row in result.rows:
            click.echo(_line(row))
        images = result.rows[-1].accuracy.images
        click.echo(f"\njudged by the {images} images that chose the epoch, in simulation")
    else:
        click.echo("\nthe last epoch's weights; no image judged them")
    click.echo(
        f"{out}: {trained.points} scales trained for {trained.target}; export needs no images"
    )
    click.echo(f"Try: edgecls export {out} --target {trained.target} -o bundles")


def _line(row: Judged) -> str:
    who = row.who if row.target is None else f"{row.who}, {row.target}"
    if row.target is not None and not row.trained:
        who += " *"
    top1, gain = accuracy_text(row.accuracy), difference_text(row.gain)
    return f"{who:<24} {top1:<22} {gain}".rstrip()
