"""``edgecls calibrate compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..core.ranges import DEFAULT_PERCENTILE, METHODS
from ..targets import TARGETS
from .options import PERCENTILE, workstation
from .text import print_json

if TYPE_CHECKING:
    from ..drift.candidates import Measure, Measured
    from ..workflows.calibration_compare import CalibrationComparison, SchemeResult

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

# By measure: its heading, the form of its values and of a difference.
_COLUMNS: Final[dict[Measure, tuple[str, str, str]]] = {
    "agreement": ("agreement", "{:.2f} %", "{:+.2f}"),
    "sqnr_db": ("SQNR", "{:.2f} dB", "{:+.2f}"),
    "kl": ("KL", "{:.5f}", "{:+.5f}"),
    "top1": ("top-1", "{:.2f} %", "{:+.2f}"),
    "top5": ("top-5", "{:.2f} %", "{:+.2f}"),
}


@click.command()
@click.argument("model")
@click.option("--data", type=_FOLDER, required=True, help="A folder of images that calibrate.")
@click.option("--against", type=_FOLDER, required=True, help="A folder of images that judge.")
@click.option("--weights", type=_FILE, help="A checkpoint: .pth, .pt, .th or .safetensors.")
@click.option("--preprocess", metavar="NAME|FILE", help="A preset or a TOML file.")
@click.option("--num-classes", type=click.IntRange(2), help="Outputs of the model's head.")
@click.option("--images", type=click.IntRange(1), default=100, show_default=True,
              help="How many calibrate.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True,
              help="Chooses the images, and the resamples of the intervals.")  # fmt: skip
@click.option("--methods", "--method", type=click.Choice(METHODS), multiple=True, default=METHODS,
              help="Repeatable; default: all. Min-max always takes part.")  # fmt: skip
@click.option("--percentile", type=PERCENTILE, default=DEFAULT_PERCENTILE,
              show_default=True, help="What the percentile method keeps.")  # fmt: skip
@click.option("--target", "targets", type=click.Choice(list(TARGETS)), multiple=True,
              help="Whose schemes; repeatable; default: all.")  # fmt: skip
@click.option("--precision", type=click.Choice(["int8", "int16x8"]), default="int8",
              show_default=True)  # fmt: skip
@click.option("--labels", type=_FILE, help="Class names, to match the folders of --against with.")
@click.option("--truth", type=_FILE, help="Ground truth of --against: JSON or CSV.")
@click.option("--allow-random-weights", is_flag=True, help="Compare on a model nobody trained.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png",
              help="Draw the differences with their intervals.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    model: str,
    against: Path,
    methods: tuple[Any, ...],
    targets: tuple[str, ...],
    precision: Any,
    labels: Path | None,
    truth: Path | None,
    plot: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare the calibration methods on MODEL, on images that none of them has seen.

    One pass over --data gives every method its ranges. Each method is quantized as each target's
    scheme has it, and simulated on --against; images there that have calibrated are left out.
    """
    with workstation():
        from ..workflows.calibrate import CalibrateOptions
        from ..workflows.calibration_compare import CompareOptions, compare_methods
        from ..workflows.calibration_compare_plot import check_plot, plot_comparison
    from .show import TerminalProgress

    if plot is not None:
        check_plot(plot)
    asked = CompareOptions(
        calibrate=CalibrateOptions(source=model, **options), against=against, methods=methods,
        targets=targets, precision=precision, labels=labels, truth=truth,
    )  # fmt: skip
    found = compare_methods(asked, TerminalProgress(quiet=as_json))
    if plot is not None:
        plot_comparison(found, plot)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: CalibrationComparison) -> None:
    from .show import console

    out = console()
    left = f" ({found.overlap} more had calibrated)" if found.overlap else ""
    float_top1 = "" if found.float_top1 is None else f"; float top-1 {found.float_top1:.2f} %"
    click.echo(
        f"calibrated on {found.calibrated_on} images, judged on {found.judged_on} others{left}"
        f"{float_top1}"
    )
    for scheme in found.schemes:
        click.echo(f"\n{_title(scheme)}")
        out.print(_table(scheme))
    click.echo(
        "\nBelow a value: the difference from minmax, from ... to, with "
        f"{100 * found.confidence:g} % confidence in all of a column.\n"
        "level: it holds 0, neither is shown to be better. KL (in nats) is better smaller."
    )


def _title(scheme: SchemeResult) -> str:
    where = {"full": "on every tensor", "fused": "as TensorRT fuses them"}
    how = scheme.scheme
    skipped = f", {len(scheme.left_float)} operators left float" if scheme.left_float else ""
    return (
        f"{', '.join(scheme.targets)}: int{how.activation_bits} activations, {how.activations}, "
        f"{where[how.placement]}{skipped}"
    )


def _table(scheme: SchemeResult) -> Any:
    from rich.table import Table

    measures = list(scheme.methods[0].measures)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for measure in measures:
        table.add_column(_COLUMNS[measure][0], justify="right", no_wrap=True)
    for row in scheme.methods:
        table.add_row(row.method, *(_cell(m, row.measures[m]) for m in measures))
    return table


def _cell(measure: Measure, found: Measured) -> str:
    _, value, difference = _COLUMNS[measure]
    text = value.format(found.value)
    if found.difference is None:
        return text
    ends = (
        f"{difference.format(found.difference.low)} to {difference.format(found.difference.high)}"
    )
    return f"{text}\n{found.verdict}\n[dim]{ends}[/dim]"
