"""Where a layer runs, and in which precision."""

from __future__ import annotations

import msgspec


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer, as the runtime cut the model.

    Attributes:
        name: As the runtime calls it; of LiteRT, which names none, its output's.
        operator: As the runtime calls it.
        where: What computes it, e.g. "XNNPACK", "CPUExecutionProvider", "TensorRT".
        delegated: Whether that is the fast place that its backend is chosen for.
        precision: Of what it reads, " x " its weights', where they differ; " -> " what it gives,
            where that differs. Empty where the runtime does not tell.
        macs: Multiplications of one image; None where the runtime does not tell.
    """

    name: str
    operator: str
    where: str
    delegated: bool
    precision: str
    macs: int | None = None


def precision_of(read: str, weights: str, given: str) -> str:
    """Return ``Layer.precision`` of the types of what a layer reads, its weights and its output."""
    text = read if weights in ("", read) else f"{read} x {weights}"
    return text if given in ("", read) else f"{text} -> {given}"
