"""``edgecls inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import click

from ..targets.target import BackendName
from .options import PERCENT
from .text import print_json

if TYPE_CHECKING:
    from ..bundle.manifest import Manifest
    from ..bundle.recipe import Recipe


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--placement", is_flag=True,
    help="Load it, and list where each layer runs on this machine and in which precision.",
)  # fmt: skip
@click.option(
    "--backend", type=click.Choice(get_args(BackendName)),
    help="With --placement: of this one. Default: the target's first that can run here.",
)  # fmt: skip
@click.option(
    "--require-delegated", type=PERCENT, metavar="PERCENT",
    help="With --placement: exit code 1 where fewer of the layers run on XNNPACK, on the provider "
    "that the backend is chosen for, or in TensorRT.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The manifest, or the placement, as it is.")
def command(
    bundle: Path,
    placement: bool,
    backend: str | None,
    require_delegated: float | None,
    as_json: bool,
) -> None:
    """Say what is in BUNDLE. Only its manifest is read; verify reads every file."""
    from ..bundle import Bundle

    if not placement and (backend is not None or require_delegated is not None):
        raise click.UsageError("--backend and --require-delegated go with --placement")
    opened = Bundle(bundle)
    if placement:
        from .inspect_placement import inspect_placement

        inspect_placement(opened, cast("BackendName | None", backend), require_delegated, as_json)
    elif as_json:
        print_json(opened.manifest)
    else:
        _show(opened.manifest, opened.sha256)


def _show(manifest: Manifest, sha256: str) -> None:
    import msgspec
    from rich.table import Table

    from .show import console, human_bytes

    out = console()
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    weights = manifest.model.weights_sha256
    parameters = manifest.model.parameters
    facts.add_row("target", f"{manifest.target}, {manifest.precision}")
    facts.add_row("model", manifest.model.source)
    if weights is not None:
        facts.add_row("weights", f"sha256 {weights}")
    if parameters is not None:
        facts.add_row("parameters", f"{parameters:,}")
    named = "named" if manifest.labels else "without names"
    facts.add_row("classes", f"{manifest.num_classes}, {named}")
    facts.add_row("preprocess", _preprocess_line(msgspec.structs.asdict(manifest.preprocess)))
    if manifest.calibration is not None:
        calibration = manifest.calibration
        trained = f"; {calibration.learned} ranges trained" if calibration.learned else ""
        facts.add_row(
            "calibration",
            f"{calibration.images} images, {calibration.method}, seed {calibration.seed}{trained}",
        )
    if manifest.tuning is not None:
        tuning = manifest.tuning
        mended = ", ".join(tuning.repairs) or "no repair"
        facts.add_row(
            "tuning",
            f"{mended}; {len(tuning.left_float)} layers left float; {tuning.drop:.2f} points lost "
            f"on {tuning.images} images (an estimate)",
        )
    if manifest.recipe is not None:
        facts.add_row("recipe", _recipe_line(manifest.recipe))
    facts.add_row("golden", f"{len(manifest.golden)} samples, {manifest.golden_source}")
    facts.add_row("tools", ", ".join(f"{name} {at}" for name, at in manifest.tools.items()))
    facts.add_row("manifest", f"sha256 {sha256}")
    out.print(facts)
    files = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("artefact", "precision", "size", "input", "output", "int8 layers"):
        files.add_column(heading, justify="right" if heading == "size" else "left")
    for artefact in manifest.artefacts:
        total = artefact.quantized + len(artefact.left_float)
        files.add_row(
            artefact.path,
            artefact.precision,
            human_bytes(manifest.files[artefact.path].size_bytes),
            f"{_shape(artefact.input.shape)} {artefact.input.dtype}",
            f"{_shape(artefact.output.shape)} {artefact.output.dtype}",
            f"{artefact.quantized} of {total}" if total else "",
        )
    out.print()
    out.print(files)
    steps = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("step", "compared with", "max|a-b|/max|a|", "limit"):
        steps.add_column(heading, justify="right" if heading in {"limit"} else "left")
    for step in manifest.steps:
        limit = "the drift gate's" if step.limit is None else f"{step.limit:g}"
        steps.add_row(step.step, step.against, f"{step.max_difference:.2g}", limit)
    out.print()
    out.print(steps)
    total_bytes = sum(entry.size_bytes for entry in manifest.files.values())
    out.print(f"\n{len(manifest.files)} files, {human_bytes(total_bytes)} in all")


def _recipe_line(recipe: Recipe) -> str:
    stages = [
        step.stage if step.points is None else f"{step.stage} {step.points.value:+.2f} points"
        for step in recipe.steps
    ]
    first, last = recipe.steps[0], recipe.steps[-1]
    text = f"{', '.join(stages)}; {first.size_bytes / last.size_bytes:.1f} times as small"
    if last.timing is not None and last.timing.against_start is not None:
        text += f", {last.timing.against_start.value:.2f} times as fast"
    return text + ("" if recipe.verdict is None else f"; the gate: {recipe.verdict}")


def _shape(shape: tuple[int | None, ...]) -> str:
    return "x".join("N" if size is None else str(size) for size in shape)


def _preprocess_line(values: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
