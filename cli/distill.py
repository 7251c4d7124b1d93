"""``edgecls distill``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .config import config_option
from .options import workstation
from .text import print_json
from .training_options import (
    data_options,
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
    from ..training import Epoch
    from ..workflows.distill import DistillOptions, DistillPlan, DistillResult, Judged

# Of workflows/distill.py, whose import brings torch.
_SEES: Final = ("same", "plain")


@click.command()
@config_option
@click.argument("model")
@data_options
@settings_options
@model_options
@click.option(
    "--teacher", required=True, metavar="MODEL",
    help="A folder of edgecls train, a .onnx or .pt2 file, or a zoo's name.",
)  # fmt: skip
@click.option(
    "--teacher-weights", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The teacher's weights.",
)  # fmt: skip
@click.option(
    "--teacher-preprocess", metavar="NAME|FILE",
    help="The teacher's preprocessing, where it brings none and the student's is not its own.",
)  # fmt: skip
@click.option(
    "--teacher-sees", type=click.Choice(_SEES), default="same", show_default=True,
    help="same: each image as the student sees it; plain: without augmentation, asked once.",
)  # fmt: skip
@click.option(
    "--teacher-cache", type=click.Path(file_okay=False, path_type=Path),
    help="The folder for answers that are kept, to share them. Default: OUT.",
)  # fmt: skip
@click.option(
    "--temperature", type=float, default=4.0, show_default=True,
    help="Divides both models' logits.",
)  # fmt: skip
@click.option(
    "--alpha", type=float, default=0.9, show_default=True,
    help="The teacher's part of the loss; the labels' is the rest.",
)  # fmt: skip
@click.option(
    "--hint", "hints", multiple=True, metavar="STUDENT[=TEACHER]",
    help="Layers that should be active in the same places; repeatable.",
)  # fmt: skip
@click.option("--hint-weight", type=float, default=1000.0, show_default=True)
@click.option(
    "--control", is_flag=True,
    help="Also train the same student without a teacher, into OUT/control, and compare.",
)  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Write OUT/tensorboard too.")
@run_options
def command(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Train MODEL, a student, on a teacher's answers and the labels; OUT is a model as of train.

    MODEL is what `edgecls train` takes: an architecture, with or without --weights, or a folder of
    `edgecls train` or `edgecls prune`. Whether a teacher helps is not known before: --control says.
    """
    with workstation():
        from ..workflows.distill import distill, plan
    from .show import TerminalProgress

    chosen = distill_options(options)
    progress = TerminalProgress(quiet=as_json)
    if dry_run:
        _show_plan(plan(chosen, progress), as_json)
        return
    result = distill(chosen, progress, None if as_json else _show_epoch)
    if result.leads:
        _show_result(result, chosen.train.out, as_json)


def distill_options(options: dict[str, Any]) -> DistillOptions:
    """Return the distillation that the command's options choose.

    Raises:
        UsageError: A number is outside its range.
    """
    from ..compress.distillation import Lesson
    from ..workflows.distill import DistillOptions
    from ..workflows.teacher import TeacherOptions

    train = train_options(options["model"], options["out"], options)
    return DistillOptions(
        train=replace(train, tensorboard=options["tensorboard"], resume=options["resume"]),
        teacher=TeacherOptions(
            model=options["teacher"], weights=options["teacher_weights"],
            preprocess=options["teacher_preprocess"],
        ),
        lesson=Lesson(
            temperature=options["temperature"], alpha=options["alpha"],
            label_smoothing=train.settings.label_smoothing,
            hints=tuple(_pair(text) for text in options["hints"]),
            hint_weight=options["hint_weight"],
        ),
        sees=options["teacher_sees"], cache=options["teacher_cache"], control=options["control"],
    )  # fmt: skip


def _pair(text: str) -> tuple[str, str]:
    student, _, teacher = text.partition("=")
    return student, teacher or student


def _show_plan(plan: DistillPlan, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    student = plan.student
    known = plan.teacher_parameters
    teacher = "a graph" if known is None else f"{known:,} parameters"
    asked = "once, and kept" if plan.kept else "live, about what the student sees"
    times = ", twice: with the teacher and without" if plan.control else ""
    click.echo(f"student:  {student.parameters:,} parameters, of which {student.learning:,} learn")
    click.echo(f"teacher:  {teacher}; answers to {plan.asked:,} images, {asked}")
    print_images_and_steps(student, times)


def _show_epoch(who: str, epoch: Epoch) -> None:
    print_epoch(epoch, f"{who:<9}  ")


def _show_result(result: DistillResult, out: Path, as_json: bool) -> None:
    if as_json:
        print_json({"out": str(out), "rows": result.rows, "record": result.record})
        return
    if not result.rows:
        click.echo(f"\n{out}: the last epoch's weights; no image judged them")
        return
    click.echo(
        f"\n{'':<14} {'parameters':>12}  {'top-1, % (95 %)':<22} distilled is better by (95 %)"
    )
    for row in result.rows:
        click.echo(_line(row))
    images = result.rows[-1].accuracy.images
    click.echo(f"\n{out}: judged by the {images} images that chose the epochs, the same for all")
    if not any(row.who == "control" for row in result.rows):
        click.echo("What the teacher is worth is not known: --control trains without it too")


def _line(row: Judged) -> str:
    count = "a graph" if row.parameters is None else f"{row.parameters:,}"
    top1, behind = accuracy_text(row.accuracy), difference_text(row.behind)
    return f"{row.who:<14} {count:>12}  {top1:<22} {behind}".rstrip()
