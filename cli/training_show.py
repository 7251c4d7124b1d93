"""What `distill` and `qat` print alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..training import Epoch
    from ..training.plan import Plan
    from ..workflows.compared import Accuracy, Difference


def print_images_and_steps(plan: Plan, times: str = "") -> None:
    """Print what a training sees, and how often."""
    click.echo(f"images:   {plan.images:,} to learn from, {plan.judged:,} to judge by")
    click.echo(
        f"steps:    {plan.settings.epochs} epochs of {plan.steps_per_epoch} steps with "
        f"{plan.settings.batch} images{times}"
    )


def print_epoch(epoch: Epoch, before: str = "") -> None:
    """Print what an epoch gave, behind ``before``."""
    judged = "" if epoch.val_top1 is None else f"  top-1 {epoch.val_top1:6.2f} %"
    click.echo(
        f"{before}epoch {epoch.epoch:>3}  loss {epoch.train_loss:.4f}{judged}  "
        f"lr {epoch.learning_rate:.2g}"
    )


def accuracy_text(found: Accuracy) -> str:
    """Return top-1 in percent with its interval."""
    return f"{found.top1:.2f} ({found.low:.1f}..{found.high:.1f})"


def difference_text(found: Difference | None) -> str:
    """Return points with their interval; nothing for None."""
    if found is None:
        return ""
    return f"{found.points:+.2f} points ({found.low:+.2f}..{found.high:+.2f})"
