"""What ``edgecls export`` says of a search on tuning images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..workflows.precision.tune import SchemeTuning, Tuned


def tuning_json(tuned: Tuned) -> dict[str, Any]:
    """Return a search's decisions as data."""
    import msgspec

    found: dict[str, Any] = {
        "images": len(tuned.judging.names),
        "truth": tuned.truth,
        "float_top1": 100 * tuned.judging.float_right / len(tuned.judging.names)
        if tuned.judging.graded
        else None,
        "max_drop": tuned.max_drop,
        "repairs": list(tuned.repairs),
        "tried": msgspec.to_builtins(list(tuned.tried)),
        "schemes": msgspec.to_builtins(list(tuned.schemes.values())),
    }
    return found


def print_tuning(tuned: Tuned) -> None:
    """Print what was repaired, what was left float for whom, why, and what it costs."""
    if tuned.tried:
        _print_repairs(tuned)
    for scheme, found in tuned.schemes.items():
        click.echo(f"\n{', '.join(found.targets)}: {_summary(tuned, found)}")
        if found.chosen.left:
            _print_left(found, "int8" if scheme.activation_bits == 8 else "16x8")
    click.echo(
        f"Estimates, on {len(tuned.judging.names)} tuning images in simulation; let "
        "`edgecls drift` judge on others."
    )


def _summary(tuned: Tuned, found: SchemeTuning) -> str:
    lost = "points of top-1 lost" if tuned.judging.graded else "% of the answers changed"
    text = f"{found.plain.drop:.2f} {lost} with every layer quantized"
    if not found.chosen.left:
        return text
    return (
        f"{text}, {found.chosen.drop:.2f} with {len(found.chosen.left)} left float "
        f"({found.chosen.float_macs:.1f} % of the multiply-accumulates; "
        f"{found.tried} graphs were tried)"
    )


def _print_repairs(tuned: Tuned) -> None:
    from rich.table import Table

    from .show import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("repair", "for", "SQNR without any", "alone", "before", "after", ""):
        table.add_column(heading, justify="left" if heading in {"repair", "for", ""} else "right")
    for one in tuned.tried:
        verdict = "kept" if one.kept else "not kept" if one.did else "nothing to do"
        if not one.gains:
            table.add_row(one.repair, "", "", "", "", "", verdict)
        for index, gain in enumerate(one.gains):
            values = (gain.plain, gain.alone, gain.before, gain.after)
            table.add_row(
                one.repair if not index else "", ", ".join(gain.targets),
                *(f"{value:.2f} dB" for value in values), f"{gain.verdict}, {verdict}",
            )  # fmt: skip
    click.echo("")
    console().print(table)


def _print_left(found: SchemeTuning, form: str) -> None:
    from rich.table import Table

    from .show import console, human_bytes

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("left float", "operator", "SQNR alone", "weights"):
        left = heading in {"left float", "operator"}
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left)
    for layer in found.layers:
        noise = "no noise" if layer.cost.sqnr_db is None else f"{layer.cost.sqnr_db:.1f} dB"
        table.add_row(layer.name, layer.operator, noise, f"{layer.weights:,}")
    console().print(table)
    click.echo(f"It costs {human_bytes(found.added_bytes)} of weights", nl=found.latency is None)
    if found.latency is not None:
        ms = found.latency
        click.echo(
            f", and takes {ms.of(found.chosen):.2f} ms on {ms.backend} here; all in {form} "
            f"{ms.plain:.2f}, all in float32 {ms.float32:.2f}"
        )
        if ms.float32 <= ms.of(found.chosen):
            click.echo("The float model is no slower here: --precision fp32 loses nothing.")
