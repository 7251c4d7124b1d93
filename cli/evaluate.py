"""``edgecls evaluate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .config import config_option
from .options import backend_options, open_named, workstation
from .text import printable_lines

if TYPE_CHECKING:
    from ..drift.evaluation import Evaluation
    from ..workflows.sources import Source

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, path_type=Path)
_CLASSES_SHOWN: Final = 20
_MISTAKES_SHOWN: Final = 10
_SKIPPED_SHOWN: Final = 10


@click.command()
@config_option
@click.argument("model", metavar="MODEL|BUNDLE|ONNX|LOGITS")
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path),
    help="A data set: a folder of images per class, CIFAR's or MNIST's files.",
)  # fmt: skip
@click.option("--split", help="Which part of it, where it has several: train, val or test.")
@click.option("--truth", type=_FILE, help="Ground truth: JSON or CSV of file, class_index.")
@click.option("--images", type=click.IntRange(1), help="How many of the images. Default: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option("--weights", type=_FILE, help="Of a model.")
@click.option("--num-classes", type=click.IntRange(2), help="Of a model.")
@click.option("--preprocess", metavar="NAME|FILE", help="Of a model.")
@click.option("--labels", type=_FILE, help="Of a model: class names in the order of its outputs.")
@click.option(
    "--max-unreadable", type=click.FloatRange(0, 100), default=1.0, show_default=True,
    metavar="PERCENT", help="Images that may be left out.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The evaluation as JSON on stdout.")
@click.option(
    "--report", "reports", type=_OUT, multiple=True,
    help="Write it; .json, .md or .html. Repeat for several.",
)  # fmt: skip
@click.option("--confusion", type=_OUT, metavar="PNG", help="Plot the confusion matrix.")
@backend_options
def command(
    model: str,
    as_json: bool,
    reports: tuple[Path, ...],
    confusion: Path | None,
    max_unreadable: float,
    **options: Any,
) -> int:
    """Say how often MODEL is right, where it is wrong, and how sure it is.

    It may be a model as export takes it, a bundle, or a file of logits that predict recorded.

    Exit code 0: evaluated; 4: something cannot be read, or more images than may be.
    """
    with workstation():
        import scipy  # noqa: F401 - what imports it does so late: an export extra or none

        from ..reports import check_report_path, plot_confusion, write_evaluation
        from ..workflows.evaluate import EvaluateOptions, evaluate
    from .show import TerminalProgress

    for path in reports:
        check_report_path(path, judged=False)
    if confusion is not None and confusion.suffix.lower() != ".png":
        raise click.UsageError(f"--confusion {confusion}: expected a name that ends in .png")
    asked = EvaluateOptions(
        **{name: options[name] for name in ("data", "split", "truth", "images", "seed")},
        tolerance=max_unreadable / 100,
    )
    found = evaluate(_open(model, options), asked, TerminalProgress(quiet=as_json))
    for path in reports:
        write_evaluation(found.evaluation, path, found.picture)
    if confusion is not None:
        plot_confusion(found.evaluation, confusion)
    if as_json:
        click.echo(found.evaluation.to_json(), nl=False)
    else:
        _show(found.evaluation)
    if found.too_many_skipped:
        skipped = len(found.evaluation.skipped)
        click.echo(
            f"error: {skipped} of {skipped + found.evaluation.images} images cannot be read, more "
            f"than {max_unreadable:g} %; look at them with `edgecls data`, or allow more with "
            "--max-unreadable",
            err=True,
        )
        return 4
    return 0


def _open(name: str, options: dict[str, Any]) -> Source:
    from ..data.labels import read_labels
    from ..workflows.sources import Live, ModelOptions

    model = {option: options[option] for option in ("weights", "num_classes", "preprocess")}
    source = open_named(name, ModelOptions(**model), options)
    if options["labels"] is None:
        return source
    if not isinstance(source, Live) or source.labels is not None:
        raise click.UsageError(f"{name} brings its own class names; leave --labels out")
    labels = read_labels(options["labels"])
    labels.check(source.classes)
    return replace(source, labels=labels)


def _show(found: Evaluation) -> None:
    from rich.table import Table

    from .show import console

    out = console()
    out.print(_safe(f"{found.model} on {found.backend}, {found.images} images"))
    out.print(f"[dim]{_safe(found.truth)}[/]\n")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, value, interval in (
        ("top-1", found.top1, found.top1_interval),
        ("top-5", found.top5, found.top5_interval),
    ):
        table.add_row(
            name, f"{value:.2f} %", f"95 % interval {interval[0]:.2f} .. {interval[1]:.2f}"
        )
    for name, value in (
        ("precision", found.precision), ("recall", found.recall), ("F1", found.f1),
    ):  # fmt: skip
        table.add_row(name, f"{value:.2f} %", "mean over the classes")
    table.add_row("ECE", f"{found.ece:.2f} %", "calibration error")
    out.print(table)
    worst = sorted(found.per_class, key=lambda score: (score.f1, score.index))
    rows = worst[:_CLASSES_SHOWN]
    if len(worst) <= _CLASSES_SHOWN:
        rows = list(found.per_class)
    classes = Table(box=None, pad_edge=False, header_style="bold")
    classes.add_column("class", overflow="fold", max_width=40)
    for heading in ("precision", "recall", "F1", "images"):
        classes.add_column(heading, justify="right")
    for score in rows:
        precision = "-" if score.precision is None else f"{score.precision:.1f} %"
        recall = "-" if score.recall is None else f"{score.recall:.1f} %"
        name = _safe(found.name_of(score.index))
        classes.add_row(name, precision, recall, f"{score.f1:.1f} %", str(score.images))
    out.print()
    out.print(classes)
    if len(worst) > len(rows):
        out.print(f"the {len(rows)} of {len(worst)} classes with the lowest F1; --json has all")
    _show_mistakes(found)
    if found.skipped:
        out.print(f"\n[yellow]{len(found.skipped)} images cannot be read[/]")
        for item in found.skipped[:_SKIPPED_SHOWN]:
            out.print(f"  {_safe(item.image)}: {_safe(item.reason)}")


def _show_mistakes(found: Evaluation) -> None:
    from rich.table import Table

    from .show import console

    if not found.mistakes:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("wrong, and sure of it", "class", "answer"):
        table.add_column(heading, overflow="fold")
    table.add_column("sure", justify="right")
    for mistake in found.mistakes[:_MISTAKES_SHOWN]:
        table.add_row(
            _safe(mistake.image),
            _safe(found.name_of(mistake.truth)),
            _safe(found.name_of(mistake.answer)),
            f"{100 * mistake.confidence:.0f} %",
        )
    out = console()
    out.print()
    out.print(table)


def _safe(text: str) -> str:
    from rich.markup import escape

    return escape(printable_lines(text))
