"""``edgecls sensitivity``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.ranges import METHODS
from ..targets import TARGETS
from .config import config_option
from .options import workstation
from .text import print_json

if TYPE_CHECKING:
    from ..workflows.precision.sensitivity import Cost, SchemeSensitivity, Sensitivity

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_SHOWN = 20


@click.command()
@config_option
@click.argument("model")
@click.option("--calib", type=_FOLDER, required=True, help="A folder of images that calibrate.")
@click.option("--data", type=_FOLDER, required=True, help="A folder of images that judge.")
@click.option("--weights", type=_FILE, help="A checkpoint: .pth, .pt, .th or .safetensors.")
@click.option("--preprocess", metavar="NAME|FILE", help="A preset or a TOML file.")
@click.option("--num-classes", type=click.IntRange(2), help="Outputs of the model's head.")
@click.option("--calib-images", type=click.IntRange(1), default=100, show_default=True)
@click.option("--calib-method", "method", type=click.Choice(METHODS), default="minmax",
              show_default=True, help="How ranges are chosen.")  # fmt: skip
@click.option("--images", type=click.IntRange(2), default=500, show_default=True,
              help="How many of --data judge at most.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option("--target", "targets", type=click.Choice(list(TARGETS)), multiple=True,
              help="Whose schemes; repeatable; default: all.")  # fmt: skip
@click.option("--precision", type=click.Choice(["int8", "int16x8"]), default="int8",
              show_default=True)  # fmt: skip
@click.option("--labels", type=_FILE, help="Class names, to match the folders of --data with.")
@click.option("--truth", type=_FILE, help="Ground truth of --data: JSON or CSV.")
@click.option("--allow-random-weights", is_flag=True, help="Measure a model nobody trained.")
@click.option("--resume", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep each layer's result here, and go on from it.")  # fmt: skip
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png",
              help="Draw each layer's noise, in the network's order.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(
    model: str,
    calib: Path,
    data: Path,
    calib_images: int,
    images: int,
    targets: tuple[str, ...],
    precision: Any,
    labels: Path | None,
    truth: Path | None,
    resume: Path | None,
    plot: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what each layer of MODEL costs in int8, all others left in float.

    A layer is a convolution or a matrix product with what follows it up to the next. --calib gives
    the ranges, --data judges; images there that have calibrated are left out.
    """
    with workstation():
        from ..workflows.calibrate import CalibrateOptions
        from ..workflows.calibration_compare_plot import check_plot
        from ..workflows.precision.plot import plot_sensitivity
        from ..workflows.precision.sensitivity import SensitivityOptions, sensitivity
    from .show import TerminalProgress

    if plot is not None:
        check_plot(plot)
    asked = SensitivityOptions(
        calibrate=CalibrateOptions(source=model, data=calib, images=calib_images, **options),
        data=data, images=images, targets=targets, precision=precision, labels=labels, truth=truth,
        resume=resume,
    )  # fmt: skip
    found = sensitivity(asked, TerminalProgress(quiet=as_json))
    if plot is not None:
        plot_sensitivity(found, plot)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Sensitivity) -> None:
    from .show import console

    out = console()
    float_top1 = "" if found.float_top1 is None else f"; float top-1 {found.float_top1:.2f} %"
    click.echo(
        f"calibrated on {found.calibrated_on} images, judged on {found.judged_on} others"
        f"{float_top1}"
    )
    for scheme in found.schemes:
        click.echo(
            f"\n{', '.join(scheme.targets)}: int{scheme.scheme.activation_bits}, "
            f"{scheme.scheme.activations}"
        )
        out.print(_table(scheme))
        if len(scheme.layers) > _SHOWN:
            click.echo(f"and {len(scheme.layers) - _SHOWN} quieter layers (--json has all)")
    click.echo(
        "\nEach row quantizes that layer only. KL in nats; these are measurements on the images "
        "above, not a verdict."
    )


def _table(scheme: SchemeSensitivity) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("layer", "operator", "MACs", "SQNR", "KL", "agreement", "top-1"):
        left = heading in {"layer", "operator"}
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left)
    total = sum(layer.macs for layer in scheme.layers)
    for layer in scheme.layers[:_SHOWN]:
        share = 100 * layer.macs / total if total else 0.0
        table.add_row(layer.name, layer.operator, f"{share:.1f} %", *_cells(layer.cost))
    table.add_row("all layers", "", "100.0 %", *_cells(scheme.all))
    return table


def _cells(cost: Cost) -> tuple[str, ...]:
    return (
        "no noise" if cost.sqnr_db is None else f"{cost.sqnr_db:.1f} dB",
        f"{cost.kl:.5f}",
        f"{cost.agreement:.2f} %",
        "" if cost.top1 is None else f"{cost.top1:.2f} %",
    )
