"""Where each layer of a bundle really runs on this machine."""

from __future__ import annotations

import msgspec

from ..bundle import Bundle
from ..core.values import Precision
from ..targets.target import BackendName
from .layer import Layer
from .selection import open_choice, select


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The layers of what runs, told by the runtime after it loaded the model.

    Attributes:
        backend: What runs it.
        artefact: The file of the bundle that it took.
        precision: The artefact's.
        description: Of the backend: library, version, device.
        layers: In the order in which they run.
    """

    backend: BackendName
    artefact: str
    precision: Precision
    description: dict[str, str]
    layers: tuple[Layer, ...]

    @property
    def delegated(self) -> int:
        """How many layers run where the backend is fast."""
        return sum(layer.delegated for layer in self.layers)

    @property
    def delegated_percent(self) -> float:
        """Their share of all layers."""
        return 100 * self.delegated / len(self.layers) if self.layers else 0.0

    @property
    def delegated_macs_percent(self) -> float | None:
        """Their share of the multiplications; None where the runtime does not tell them."""
        macs = [layer.macs or 0 for layer in self.layers]
        if any(layer.macs is None for layer in self.layers) or not sum(macs):
            return None
        taken = (count for layer, count in zip(self.layers, macs, strict=True) if layer.delegated)
        return 100 * sum(taken) / sum(macs)


def find_placement(bundle: Bundle, *, backend: BackendName | None = None) -> Placement:
    """Load a bundle and ask its runtime where the layers run.

    Args:
        bundle: What is loaded.
        backend: Is asked, or an error says why not; by default the target's first that can run
            here. A simulation is never taken in its place.

    Raises:
        BundleError: The bundle is damaged, or has nothing that the backend runs.
        MissingError: The backend, or every one of the target, cannot run here.
    """
    choice = select(bundle, backend=backend, precision=None, allow_fallback=False)
    choice, running = open_choice(bundle, choice)
    try:
        return Placement(
            backend=choice.backend,
            artefact=choice.artefact.path,
            precision=choice.artefact.precision,
            description=dict(running.description),
            layers=running.layers(bundle.read(choice.artefact.path)),
        )
    finally:
        running.close()
