"""``edgecls calibrate``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import UsageError
from ..core.ranges import DEFAULT_PERCENTILE, METHODS
from .config import config_option
from .options import PERCENTILE, workstation
from .text import print_json

if TYPE_CHECKING:
    from ..calibration.table import CalibrationTable
    from ..workflows.calibrate import CalibrateOptions

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# Percent of a tensor's values: above this, what is clipped is hardly all outliers.
_WARNED = 5.0

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def out_options(function: Any) -> Any:
    """Add ``-o`` and ``--format``."""
    function = click.option(
        "--format", "form", type=click.Choice(["json", "trt-cache"]), default="json",
        show_default=True, help="Of OUT; trt-cache is TensorRT 8 to 10's calibration cache.",
    )(function)  # fmt: skip
    return click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path))(function)


@click.command()
@config_option
@click.argument("model")
@click.option("--data", type=_FOLDER, required=True, help="A folder of images, flat or by class.")
@click.option("--weights", type=_FILE, help="A checkpoint: .pth, .pt, .th or .safetensors.")
@click.option("--preprocess", metavar="NAME|FILE", help="A preset or a TOML file.")
@click.option("--num-classes", type=click.IntRange(2), help="Outputs of the model's head.")
@click.option("--images", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option("--method", type=click.Choice(METHODS), default="minmax", show_default=True)
@click.option(
    "--percentile", type=PERCENTILE, default=DEFAULT_PERCENTILE, show_default=True,
    help="What the percentile method keeps of the values.",
)  # fmt: skip
@click.option("--part", metavar="I/N", help="Only the I-th of N parts of the images, for a merge.")
@click.option("--allow-random-weights", is_flag=True, help="Calibrate a model nobody trained.")
@click.option("--check", is_flag=True, help="Judge the images instead: exit 1 with findings.")
@click.option("--against", type=_FOLDER, help="With --check: the images that will judge the model.")
@out_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    model: str,
    out: Path | None,
    form: str,
    part: str | None,
    check: bool,
    against: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure the ranges of MODEL's tensors on images and write them as a table, OUT.

    MODEL is what `edgecls export` takes. `edgecls export --calib-table OUT` uses the table;
    `edgecls calibrate show`, `diff` and `merge` plot, compare and add up tables.
    """
    with workstation():
        from ..workflows.calibrate import CalibrateOptions, calibrate_model
    from .show import TerminalProgress

    if part is not None and form != "json":
        raise UsageError(f"a part of a table cannot be written as {form}; merge the parts first")
    if options["method"] != "percentile" and options["percentile"] != DEFAULT_PERCENTILE:
        raise UsageError("--percentile is for --method percentile")
    asked = CalibrateOptions(source=model, part=parse_part(part), **options)
    if check:
        if out is not None or part is not None:
            raise UsageError("--check writes no table; leave -o and --part out")
        return report(asked, against, as_json)
    if against is not None:
        raise UsageError("--against is for --check")
    if out is None:
        raise UsageError("nowhere to write the table; give -o FILE")
    table = calibrate_model(asked, TerminalProgress(quiet=as_json))
    write(table, out, form)
    summarize(table, out, as_json)
    return 0


def report(asked: CalibrateOptions, against: Path | None, as_json: bool) -> int:
    """Print what is wrong with the images; return the exit code."""
    from ..workflows.calibration_check import check_calibration
    from .show import TerminalProgress
    from .text import printable

    found = check_calibration(asked, against, TerminalProgress(quiet=as_json))
    if as_json:
        print_json(found)
        return 1 if found.findings else 0
    for finding in found.findings:
        click.echo(f"{finding.kind}: {printable(finding.found)}")
        click.echo(f"  -> {finding.fix}")
    compared = "" if found.against is None else f", compared with {found.against}"
    click.echo(
        f"{found.images} images, {found.tensors} tensors{compared}: "
        f"{len(found.findings) or 'no'} finding{'' if len(found.findings) == 1 else 's'}; "
        f"the second half widened the ranges by {100 * found.growth:.1f} %, "
        f"a seed changes the median by {100 * found.seed_spread:.0f} %"
    )
    return 1 if found.findings else 0


def parse_part(text: str | None) -> tuple[int, int] | None:
    """Return (i, n) of "i/n"."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None:
        raise UsageError(f"--part must be I/N, e.g. 1/3, found {text!r}")
    return int(found[1]), int(found[2])


def write(table: CalibrationTable, out: Path, form: str) -> None:
    """Write a table in the form that was asked for."""
    from ..calibration.table_file import write_table
    from ..calibration.trt_cache import format_cache
    from ..core.files import write_atomic

    if form == "json":
        write_table(out, table)
    else:
        write_atomic(out, format_cache(table.ranges()).encode())


def summarize(table: CalibrationTable, out: Path, as_json: bool) -> None:
    """Say what a table holds."""
    clipped = {name: record.clipped() for name, record in table.tensors.items()}
    most = max(clipped, key=lambda name: clipped[name])
    if as_json:
        found = {
            "table": str(out),
            "model_sha256": table.model_sha256,
            "method": table.method,
            "images": len(table.images),
            "tensors": len(table.tensors),
            "parts": table.parts_text(),
            "most_clipped": {"tensor": most, "share": clipped[most]},
        }
        print_json(found)
        return
    parts = "" if table.parts is None else f", {table.parts_text()}"
    share = 100 * clipped[most]
    if share > _WARNED:
        click.echo(
            f"note: {table.method} clips {share:.2g} % of {most}: it may lose what matters; judge "
            "it with edgecls calibrate compare",
            err=True,
        )
    clips = f"clips at most {share:.2g} % of a tensor ({most})" if share else "clips nothing"
    click.echo(
        f"{out}: {len(table.tensors)} tensors, {len(table.images)} images{parts}, {table.method}, "
        f"{clips}"
    )
