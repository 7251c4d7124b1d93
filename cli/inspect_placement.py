"""``edgecls inspect --placement``: where each layer runs here."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .text import print_json, printable

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..runtimes.placement import Placement
    from ..targets.target import BackendName


def inspect_placement(
    bundle: Bundle, backend: BackendName | None, required: float | None, as_json: bool
) -> None:
    """Print the placement of a bundle.

    Raises:
        CheckFailedError: Less than ``required`` percent of the layers are delegated.
    """
    import msgspec

    from ..core.errors import CheckFailedError
    from ..core.stderr import without_info
    from ..runtimes.placement import find_placement

    with without_info():
        found = find_placement(bundle, backend=backend)
    if as_json:
        document = {
            **msgspec.structs.asdict(found),
            "delegated_percent": found.delegated_percent,
            "delegated_macs_percent": found.delegated_macs_percent,
        }
        print_json(document)
    else:
        _show(found)
    if required is not None and not found.delegated_percent >= required:
        left = Counter(layer.operator for layer in found.layers if not layer.delegated)
        listed = ", ".join(f"{count} {printable(name)}" for name, count in left.most_common(5))
        raise CheckFailedError(
            f"expected at least {required:g} % of the layers delegated on {found.backend}, found "
            f"{_share(found)}; not delegated: {listed or 'no layer is told'}; another --precision "
            "of export may place them"
        )


def _share(found: Placement) -> str:
    return f"{found.delegated_percent:.1f} % ({found.delegated} of {len(found.layers)})"


def _show(found: Placement) -> None:
    from rich.table import Table
    from rich.text import Text

    from .show import console

    out = console()
    runs_on = ", ".join(f"{key} {value}" for key, value in found.description.items())
    title = f"{found.artefact} ({found.precision}) on {found.backend}: {runs_on}"
    out.print(printable(title), markup=False)
    out.print()
    total = sum(layer.macs or 0 for layer in found.layers)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("layer", "operator", "where", "precision", "MACs"):
        right = heading == "MACs"
        table.add_column(heading, justify="right" if right else "left", no_wrap=right)
    for layer in found.layers:
        share = f"{100 * layer.macs / total:.1f} %" if layer.macs and total else ""
        cells = (layer.name, layer.operator, layer.where, layer.precision, share)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out.print(table)
    macs = found.delegated_macs_percent
    places = Counter(layer.where for layer in found.layers)
    listed = ", ".join(f"{count} on {printable(place)}" for place, count in places.most_common())
    of_macs = "" if macs is None else f" and {macs:.1f} % of the multiplications"
    out.print(f"\ndelegated: {_share(found)} of the layers{of_macs}; {listed}", markup=False)
