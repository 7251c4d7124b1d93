"""``edgecls drift``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .config import config_option
from .options import backend_options, workstation

if TYPE_CHECKING:
    from ..drift.report import DriftReport

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FLIPS_SHOWN = 10


@click.command()
@config_option
@click.argument("bundle", type=click.Path())
@click.option(
    "--reference", required=True, metavar="BUNDLE|MODEL", help="What it is compared with."
)
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
    help="A folder of images.",
)  # fmt: skip
@click.option("--truth", type=_FILE, help="Ground truth: JSON or CSV of file, class_index.")
@click.option("--images", type=click.IntRange(1), help="How many of the images. Default: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option(
    "--max-drop", type=float, default=1.0, show_default=True, help="Top-1 budget, points."
)
@click.option("--min-agreement", type=float, help="Smallest top-1 agreement, percent.")
@click.option("--weights", type=_FILE, help="Of a reference that is a model.")
@click.option("--num-classes", type=click.IntRange(2), help="Of a reference that is a model.")
@click.option("--preprocess", metavar="NAME|FILE", help="Of a reference model. Default: BUNDLE's.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout.")
@click.option(
    "--report", "reports", type=click.Path(dir_okay=False, path_type=Path), multiple=True,
    help="Write the report; .json or .md. Repeat for several.",
)  # fmt: skip
@backend_options
def command(
    bundle: str,
    as_json: bool,
    reports: tuple[Path, ...],
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
    **options: Any,
) -> int:
    """Say what a conversion cost: BUNDLE against its reference on the same images.

    Exit code 0: the gate passed; 1: it failed; 4: it passed, but some images cannot be read.
    """
    from ..drift.report import check_report_path

    with workstation():
        from ..workflows.drift import DriftOptions, drift
        from ..workflows.references import is_bundle
    from .options import open_predictor
    from .show import TerminalProgress

    for path in reports:
        check_report_path(path)
    from_file = click.get_current_context().get_parameter_source("preprocess")
    if from_file is ParameterSource.DEFAULT_MAP and is_bundle(options["reference"]):
        options["preprocess"] = None  # a bundle brings its own; the file's is for models
    predictor = open_predictor(bundle, backend, allow_fallback, threads)
    report = drift(predictor, DriftOptions(**options), TerminalProgress(quiet=as_json))
    for path in reports:
        report.write(path)
    if as_json:
        click.echo(report.to_json(), nl=False)
    else:
        _print(report)
    # A gate that passed without some of the images has not passed on the data that was given.
    return report.verdict.exit_code or (4 if report.skipped else 0)


def _print(report: DriftReport) -> None:
    from rich.table import Table

    from .show import console
    from .text import printable

    out = console()
    metrics = report.metrics
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("top-1", justify="right")
    table.add_column("top-5", justify="right")
    table.add_column("runs on")
    for name, top1, top5 in (
        ("reference", metrics.reference_top1, metrics.reference_top5),
        ("candidate", metrics.candidate_top1, metrics.candidate_top5),
    ):
        table.add_row(name, _percent(top1), _percent(top5), report.backends[name])
    out.print(table)
    out.print(
        f"\n{metrics.images} images, agreement {metrics.agreement:.2f} %, logits differ by "
        f"{metrics.mean_logit_difference:.3g} (mean), {metrics.max_logit_difference:.3g} (max)"
    )
    if metrics.flips:
        out.print(f"\n{len(metrics.flips)} images changed their answer:")
    for flip in metrics.flips[:_FLIPS_SHOWN]:
        out.print(
            f"  {printable(flip.image)}: "
            f"{_name(report, flip.reference)} -> {_name(report, flip.candidate)}",
            markup=False,
        )
    if len(metrics.flips) > _FLIPS_SHOWN:
        out.print(f"  ... and {len(metrics.flips) - _FLIPS_SHOWN} more")
    if report.skipped:
        out.print(f"\n{len(report.skipped)} images could not be read (exit code 4):")
        for item in report.skipped[:_FLIPS_SHOWN]:
            out.print(f"  {printable(item.image)}: {printable(item.reason)}", markup=False)
    out.print()
    for check in report.verdict.checks:
        sign = "<=" if check.measure == "top1_drop" else ">="
        result = "passed" if check.passed else "failed"
        out.print(f"{check.measure} {check.value:.2f} {sign} {check.limit:g}: {result}")
    colour = "green" if report.verdict.outcome == "passed" else "red"
    out.print(f"[bold {colour}]{report.verdict.outcome}[/] (point estimates)")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _name(report: DriftReport, index: int) -> str:
    return report.labels[index] if report.labels else str(index)
