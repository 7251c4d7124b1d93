"""``edgecls train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from ..training import Epoch
    from ..training.plan import Plan
    from ..workflows.train import TrainResult


@click.command()
@config_option
@click.argument("model")
@data_options
@settings_options
@model_options
@click.option("--tensorboard", is_flag=True, help="Write OUT/tensorboard too.")
@run_options
def command(
    model: str, tensorboard: bool, resume: bool, dry_run: bool, out: Path, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Train MODEL on images: OUT/model.safetensors has the weights of the best epoch.

    MODEL is what `edgecls models` lists, or package.module:callable. OUT is then a model itself:
    `edgecls export OUT`, `edgecls drift --reference OUT`. Several processes learn together as
    torchrun starts them: torchrun --nproc-per-node 2 -m edgecls train ...
    """
    with workstation():
        from ..workflows.train import plan, train
    from .show import TerminalProgress

    chosen = replace(train_options(model, out, options), tensorboard=tensorboard, resume=resume)
    progress = TerminalProgress(quiet=as_json)
    if dry_run:
        _show_plan(plan(chosen, progress), as_json)
        return
    result = train(chosen, progress, None if as_json else _show_epoch)
    if result.leads:
        _show_result(result, out, as_json)


def _show_plan(plan: Plan, as_json: bool) -> None:
    from .show import console, human_bytes

    if as_json:
        print_json(plan)
        return
    settings = plan.settings
    macs = "unknown" if plan.macs is None else f"{plan.macs / 1e6:.1f} M"
    memory = "unknown" if plan.memory_bytes is None else human_bytes(plan.memory_bytes)
    rises = f", rising for {plan.warmup_steps} steps" if plan.warmup_steps else ""
    left = plan.images - plan.steps_per_epoch * settings.batch
    rows = (
        ("parameters", f"{plan.parameters:,}, of which {plan.learning:,} learn; {macs} MACs"),
        ("images", f"{plan.images:,} to learn from, {plan.judged:,} to judge by"),
        (
            "steps",
            f"{settings.epochs} epochs of {plan.steps_per_epoch} steps with {settings.batch} "
            f"images" + (f"; {left} images of each epoch fill no batch" if left else ""),
        ),
        ("schedule", f"{settings.optimizer}, {settings.schedule} to {settings.peak:g}{rises}"),
        ("processes", f"{plan.processes} on {plan.device}"),
        ("memory", f"{memory} for each process, beside torch and decoded images"),
    )
    for name, text in rows:
        console().print(f"{name + ':':<12} {text}", markup=False)


def _show_epoch(epoch: Epoch) -> None:
    judged = (
        ""
        if epoch.val_top1 is None
        else f"  val loss {epoch.val_loss:.4f}  top-1 {epoch.val_top1:6.2f} %"
    )
    click.echo(
        f"epoch {epoch.epoch:>3}  loss {epoch.train_loss:.4f}  top-1 {epoch.train_top1:6.2f} %"
        f"{judged}  lr {epoch.learning_rate:.2g}"
    )


def _show_result(result: TrainResult, out: Path, as_json: bool) -> None:
    from ..drift.proportion import wilson

    record, best = result.record, result.best
    interval = None
    if record.val is not None and best.val_top1 is not None:
        right = round(best.val_top1 * record.val.images / 100)
        low, high = wilson(right, record.val.images)
        interval = (100 * low, 100 * high)
    if as_json:
        print_json(
            {"out": str(out), "best": best, "val_top1_interval": interval,
             "epochs": result.history}
        )  # fmt: skip
        return
    if interval is None or record.val is None:
        click.echo(f"\n{out}: the last epoch's weights; no image judged them")
    else:
        click.echo(
            f"\n{out}: epoch {best.epoch}, top-1 {best.val_top1:.2f} % "
            f"({interval[0]:.1f}..{interval[1]:.1f}, 95 %) of {record.val.images} images that "
            "chose the epoch"
        )
    click.echo(f"Try: edgecls export {out} --target raspberry-pi --calib DIR -o bundles")
