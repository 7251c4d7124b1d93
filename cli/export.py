"""``edgecls export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.ranges import METHODS
from ..core.values import PRECISIONS
from .config import config_option
from .export_tuning import print_tuning, tuning_json
from .options import workstation
from .text import print_json

if TYPE_CHECKING:
    from ..export.preflight import Preflight
    from ..workflows.export import ExportResult

_SHOWN = 10

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@config_option
@click.argument("model")
@click.option("--target", "targets", multiple=True, required=True, help="Repeat for several.")
@click.option("--weights", type=_FILE, help="A checkpoint: .pth, .pt, .th or .safetensors.")
@click.option(
    "--calib", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of images to quantize with, flat or by class; adds to a quantized graph what it "
    "lacks.",
)  # fmt: skip
@click.option("--calib-images", type=click.IntRange(1), default=100, show_default=True)
@click.option(
    "--calib-method", "method", type=click.Choice(METHODS), default="minmax", show_default=True,
    help="How ranges are chosen.",
)  # fmt: skip
@click.option(
    "--calib-table", type=_FILE,
    help="A table of `edgecls calibrate`, with its own method; --calib then gives golden samples.",
)  # fmt: skip
@click.option("--labels", type=_FILE, help="Class names in the order of the model's outputs.")
@click.option("--preprocess", metavar="NAME|FILE", help="A preset or a TOML file.")
@click.option("--num-classes", type=click.IntRange(2), help="Outputs of the model's head.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Default: int8.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option("--allow-random-weights", is_flag=True, help="Export a model nobody trained.")
@click.option(
    "--keep-graphs", type=click.Path(file_okay=False, path_type=Path),
    help="A folder for the ONNX graphs between the stages.",
)  # fmt: skip
@click.option(
    "--phone", is_flag=True,
    help="Add the .tflite that MediaPipe and Android take: uint8 pixels in, metadata inside.",
)  # fmt: skip
@click.option(
    "--strict-int8", is_flag=True,
    help="Fail (exit 1) where an int8 file computes something in float.",
)  # fmt: skip
@click.option(
    "--jetpack", metavar="VERSION",
    help="Check what ships to a Jetson against this JetPack's TensorRT, e.g. 6.2.",
)  # fmt: skip
@click.option(
    "--module", metavar="NAME",
    help="With --jetpack: the Jetson module, e.g. orin-nano; says what its DLA would run.",
)  # fmt: skip
@click.option(
    "--implicit-int8", is_flag=True,
    help="Add the float graph and a calibration cache, by which TensorRT 10 quantizes it itself.",
)  # fmt: skip
@click.option(
    "--max-drop", type=float, metavar="POINTS",
    help="Leave layers float until no more of top-1 is lost on --tune, as far as it can tell.",
)  # fmt: skip
@click.option(
    "--max-float", type=click.FloatRange(0, 100), default=100.0, show_default=True,
    metavar="PERCENT", help="With --max-drop: the most of the network's work that may be left so.",
)  # fmt: skip
@click.option(
    "--recipe", type=click.Choice(["fast", "best"]), default="fast", show_default=True,
    help="best: try each repair on --tune, and keep what pays.",
)  # fmt: skip
@click.option(
    "--tune", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of images for --max-drop and --recipe best, that neither calibrate nor judge.",
)  # fmt: skip
@click.option("--tune-images", type=click.IntRange(2), default=1000, show_default=True)
@click.option("--tune-truth", type=_FILE, help="Ground truth of --tune: JSON or CSV.")
@click.option(
    "--tune-resume", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Keep what the search measured here, and go on from it.",
)  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(as_json: bool, model: str, **options: Any) -> int:
    """Turn MODEL into one bundle per target, OUT/TARGET/.

    MODEL is timm:NAME, torchvision:NAME, lenet5, cifar_resnet20 (32, 44, 56),
    package.module:callable, FILE.pt2 or FILE.onnx. A bundle that misses --max-drop is kept as
    OUT/TARGET.failing/.
    """
    with workstation():
        from ..workflows.export import export
        from ..workflows.export_options import ExportOptions
    from .show import TerminalProgress

    result = export(ExportOptions(source=model, **options), TerminalProgress(quiet=as_json))
    if as_json:
        print_json(_to_json(result))
    else:
        _print(result)
    for found in result.missed:
        click.echo(
            f"error: --max-drop {options['max_drop']:g} cannot be kept. {found.why()} is the best "
            "that was found, kept as .failing; allow a larger --max-drop or --max-float, or try "
            "--recipe best",
            err=True,
        )
    return 1 if result.missed else 0


def _to_json(result: ExportResult) -> dict[str, Any]:
    import msgspec

    return {
        "bundles": [
            {
                "target": bundle.manifest.target,
                "path": str(bundle.path),
                "precision": bundle.manifest.precision,
                "artefacts": [
                    {
                        "path": artefact.path,
                        "format": artefact.format,
                        "precision": artefact.precision,
                        "size_bytes": bundle.manifest.files[artefact.path].size_bytes,
                        "quantized": artefact.quantized,
                        "left_float": list(artefact.left_float),
                    }
                    for artefact in bundle.manifest.artefacts
                ],
                "steps": [msgspec.to_builtins(step) for step in bundle.manifest.steps],
            }
            for bundle in result.bundles
        ],
        "tuning": None if result.tuned is None else tuning_json(result.tuned),
        "preflight": msgspec.to_builtins(result.preflight),
        "seconds": {stage: round(value, 3) for stage, value in result.seconds.items()},
    }


def _print(result: ExportResult) -> None:
    from rich.table import Table

    from .show import console, human_bytes

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("bundle")
    table.add_column("artefact")
    table.add_column("size", justify="right")
    table.add_column("int8 layers", justify="right")
    for bundle in result.bundles:
        for index, artefact in enumerate(bundle.manifest.artefacts):
            total = artefact.quantized + len(artefact.left_float)
            table.add_row(
                str(bundle.path) if index == 0 else "",
                artefact.path,
                human_bytes(bundle.manifest.files[artefact.path].size_bytes),
                f"{artefact.quantized} of {total}" if total else "",
            )
    out.print(table)
    for names in dict.fromkeys(a.left_float for b in result.bundles for a in b.manifest.artefacts):
        if names:
            shown = ", ".join(names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more (--json names all)" * (len(names) > _SHOWN)
            out.print(f"\nleft in float: {shown}{more}", markup=False, highlight=False)
    steps = {step.step: step for bundle in result.bundles for step in bundle.manifest.steps}
    checks = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("step", "max|a-b|/max|a|", "limit"):
        checks.add_column(heading, justify="left" if heading == "step" else "right")
    for step in steps.values():
        limit = "" if step.limit is None else f"{step.limit:g}"
        checks.add_row(f"{step.step} (against {step.against})", f"{step.max_difference:.2g}", limit)
    out.print()
    out.print(checks)
    if result.tuned is not None:
        print_tuning(result.tuned)
    if result.preflight is not None:
        out.print(f"\n{_preflight(result.preflight)}", markup=False, highlight=False)
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
    out.print(f"\n{times}")


def _preflight(found: Preflight) -> str:
    where = f"JetPack {found.jetpack}" + (f", {found.module}" if found.module else "")
    nodes = sum(found.operators.values())
    lines = [f"{where}: TensorRT {found.tensorrt} takes all {nodes} nodes (by its tables)"]
    lines += found.notes
    if found.dla:
        on = [node for node in found.dla if node.runs == "dla"]
        lines.append(f"DLA ({found.dla_cores} cores): {len(on)} of {len(found.dla)} nodes can run")
        left = [node for node in found.dla if node.runs != "dla"]
        places = {"gpu": "on the GPU", "unknown": "not known"}
        reasons = dict.fromkeys(f"{places[n.runs]}: {n.operator}, {n.reason}" for n in left)
        lines += [f"  {reason}" for reason in sorted(reasons)[:_SHOWN]]
    return "\n".join(lines)
