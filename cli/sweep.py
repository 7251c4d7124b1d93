"""``edgecls sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.ranges import METHODS
from ..core.values import PRECISIONS
from ..targets import TARGETS
from .config import config_option
from .options import workstation

if TYPE_CHECKING:
    from ..drift.sweep import Sweep

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@config_option
@click.argument("model", nargs=-1, required=True, metavar="MODEL...")
@click.option("--target", "targets", type=click.Choice(list(TARGETS)), multiple=True,
              required=True, help="Repeat for several.")  # fmt: skip
@click.option("--calib", type=_FOLDER, required=True, help="A folder of images that calibrate.")
@click.option("--data", type=_FOLDER, required=True, help="A folder of images that judge.")
@click.option("--tune", type=_FOLDER, help="Images for --recipe best and --max-drop.")
@click.option("--weights", "checkpoints", type=_FILE, multiple=True,
              help="A .pth, .pt, .th or .safetensors file; once for each MODEL.")  # fmt: skip
@click.option("--preprocess", metavar="NAME|FILE", help="A preset or a TOML file.")
@click.option("--num-classes", type=click.IntRange(2), help="Outputs of the model's head.")
@click.option("--labels", type=_FILE, help="Class names in the order of the model's outputs.")
@click.option("--truth", type=_FILE, help="Ground truth of --data: JSON or CSV.")
@click.option("--tune-truth", type=_FILE, help="Ground truth of --tune: JSON or CSV.")
@click.option("--precision", "precisions", type=click.Choice(PRECISIONS), multiple=True,
              help="Repeatable; default: all that a target runs.")  # fmt: skip
@click.option("--recipe", "recipes", type=click.Choice(["fast", "best"]), multiple=True,
              default=("fast",), show_default=True, help="Repeatable.")  # fmt: skip
@click.option("--max-drop", "max_drops", type=float, multiple=True, metavar="POINTS",
              help="Repeatable: budgets to try beside none.")  # fmt: skip
@click.option("--calib-images", type=click.IntRange(1), default=100, show_default=True)
@click.option("--calib-method", "method", type=click.Choice(METHODS), default="minmax",
              show_default=True, help="How ranges are chosen.")  # fmt: skip
@click.option("--tune-images", type=click.IntRange(2), default=1000, show_default=True)
@click.option("--images", type=click.IntRange(2), default=1000, show_default=True,
              help="How many of --data judge at most.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option("--report", "reports", type=click.Path(dir_okay=False, path_type=Path),
              multiple=True, metavar="FILE", help="Repeatable: .html or .json.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    model: tuple[str, ...],
    checkpoints: tuple[Path, ...],
    data: Path,
    images: int,
    truth: Path | None,
    precisions: tuple[Any, ...],
    recipes: tuple[Any, ...],
    max_drops: tuple[float, ...],
    reports: tuple[Path, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Export MODELs in every precision and recipe, and compare accuracy, size and latency.

    Each way's bundles stand in a folder of --out, ready to ship. Images of --data that calibrated
    or tuned are left out. Several MODELs, such as the folders of `edgecls train` and `edgecls
    prune`, stand in one table and one plot.
    """
    with workstation():
        from ..reports.sweep import check_sweep_path, write_sweep
        from ..workflows.export_options import ExportOptions
        from ..workflows.precision.sweep import SweepOptions, sweep
    from .show import TerminalProgress

    for file in reports:
        check_sweep_path(file)
    asked = SweepOptions(
        exports=tuple(
            ExportOptions(source=source, weights=weights, **options)
            for source, weights in zip(model, _each(checkpoints, model), strict=True)
        ),
        data=data, images=images, truth=truth, precisions=precisions, recipes=recipes,
        max_drops=max_drops,
    )  # fmt: skip
    found = sweep(asked, TerminalProgress(quiet=as_json))
    for file in reports:
        write_sweep(found, file)
    if as_json:
        click.echo(found.to_json().decode(), nl=False)
    else:
        _print(found)


def _each(
    checkpoints: tuple[Path, ...], models: tuple[str, ...]
) -> tuple[Path, ...] | tuple[None, ...]:
    if checkpoints and len(checkpoints) != len(models):
        raise click.UsageError(
            f"--weights is given {len(checkpoints)} times for {len(models)} MODELs; give it once "
            "for each, in their order, or not at all"
        )
    return checkpoints or (None,) * len(models)


def _print(found: Sweep) -> None:
    from rich.table import Table

    from .show import console, human_bytes

    for model in found.models:
        click.echo(
            f"{model.name} on {found.images} images: {model.float_top1:.2f} % right in float32"
        )
    click.echo("")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("target", "conversion", "top-1", "95 % interval", "size", "latency", "best"):
        left = heading in {"target", "conversion", "best"}
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left)
    seen = ""
    for point in found.points:
        latency = "simulated" if point.latency_ms is None else f"{point.latency_ms:.2f} ms"
        table.add_row(
            point.target if point.target != seen else "",
            found.title(point) + " (budget missed)" * (not point.reached),
            f"{point.top1:.2f} %",
            f"{point.lower:.2f} .. {point.upper:.2f}",
            human_bytes(point.size_bytes),
            latency,
            "yes" if point.front else "",
        )
        seen = point.target
    console().print(table)
    click.echo(
        "\nbest: no other for the target is better in accuracy, size or latency and as good in the "
        "others, of those that keep their budget. The chosen bundle can be shipped as it stands; "
        "judge it on images that chose nothing: edgecls drift."
    )
