"""What ``edgecls drift --explain`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .text import printable

if TYPE_CHECKING:
    from rich.text import Text

    from ..drift.explanation import Cost, Explanation, LayerFinding


def print_explanation(found: Explanation, *, as_json: bool) -> None:
    """Print where a drop comes from."""
    from rich.table import Table

    from .show import console

    if as_json:
        click.echo(found.to_json(), nl=False)
        return
    out = console()
    what = "top-1" if found.measure == "top1" else "agreement with the reference"
    out.print(
        f"{what} on {found.images} images: reference {found.reference_percent:.2f} %, "
        f"candidate {found.candidate_percent:.2f} %"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stage", "expected", "found", "costs", "95 % interval", "alone"):
        right = heading in {"costs", "95 % interval", "alone"}
        table.add_column(
            heading, justify="right" if right else "left", no_wrap=right or heading == "stage"
        )
    for stage in found.stages:
        style = "red" if stage in found.blamed else ""
        cells = [_text(stage.stage), _text(stage.expected), _text(stage.found)]
        alone = "" if stage.alone is None else f"{stage.alone.points:.2f}"
        table.add_row(*cells, f"{stage.cost.points:.2f}", _interval(stage.cost), alone, style=style)
    table.add_row(
        "all", "", "", f"{found.total.points:.2f}", _interval(found.total), "", style="bold"
    )
    out.print()
    out.print(table)
    out.print("(costs in points of top-1; they add up. Alone: the cost with no other change)")
    if found.same:
        out.print(f"no difference in: {', '.join(found.same)}")
    _print_layers(found.layers)
    for note in found.notes:
        out.print(f"note: {printable(note)}", markup=False)
    out.print()
    if not found.blamed:
        out.print("[green]no stage is shown to cost anything[/]")
    for stage in found.blamed:
        out.print(printable(stage.sentence()), style="red", markup=False)


def _print_layers(layers: tuple[LayerFinding, ...]) -> None:
    from rich.table import Table

    from .show import console

    if not layers:
        return
    out = console()
    departs = layers[0].departs
    out.print()
    if departs:
        out.print("first layers that depart, each fed with the float model's own values:")
    else:
        out.print("no layer departs from its plan; most error of their own have:")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("layer", "operator", "error", "planned", "of its inputs", "scale", "planned"):
        left = heading in {"layer", "operator"}
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for layer in layers:
        scales = (layer.scale, layer.planned_scale)
        errors = (layer.error, layer.planned_error, layer.inputs_error)
        table.add_row(
            _text(layer.name),
            layer.operator,
            *(f"{100 * error:.2f} %" for error in errors),
            *("-" if scale is None else f"{scale:.4g}" for scale in scales),
            style="red" if departs else "",
        )
    out.print(table)


def _interval(cost: Cost) -> str:
    return f"{cost.lower:.2f} .. {cost.upper:.2f}"


def _text(content: str) -> Text:
    from rich.text import Text

    return Text(printable(content))
