"""The tables of ``calibration_peers.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from common import table

from edgecls.drift.candidates import Measure, Measured, Record, measure_all

HEADER = ("", "SQNR", "KL", "agrees with its float", "top-1", "quantize", "peak memory")


@dataclass(frozen=True)
class PeerRow:
    """What one quantizer made of one model.

    Attributes:
        name: The quantizer and its method.
        error: Why there is no file, or why it does not run.
        seconds: Of calibration and quantization, without imports.
        peak_bytes: Of its process.
        record: Its answers beside its float model's; None with an error.
    """

    name: str
    error: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    record: Record | None = None


def report(title: str, rows: list[PeerRow], seed: int = 0) -> tuple[str, dict[str, Any]]:
    """Return the table, with intervals against edgecls's default and its best, and its values.

    The default is the first row. The best is edgecls's row with the highest SQNR, chosen on the
    same images that judge it: a choice among a few whose differences are mostly larger than the
    intervals.
    """
    records = {row.name: row.record for row in rows if row.record is not None}
    default = rows[0].name
    against_default = measure_all(records, default, seed=seed)
    ours = [name for name in records if name.startswith("edgecls")]
    best = max(ours, key=lambda name: against_default[name]["sqnr_db"].value)
    against_best = measure_all(records, best, seed=seed)
    header = (*HEADER, *_heads(default), *(_heads(best) if best != default else ()))
    lines = []
    for row in rows:
        if row.record is None:
            lines.append([row.name, "failed", *[""] * (len(header) - 2)])
            continue
        first, second = against_default[row.name], against_best[row.name]
        lines.append(
            [
                row.name, f"{first['sqnr_db'].value:.2f} dB", f"{first['kl'].value:.5f}",
                f"{first['agreement'].value:.2f} %", f"{first['top1'].value:.2f} %",
                f"{row.seconds:.1f} s", f"{row.peak_bytes / 1e6:.0f} MB",
                *_intervals(first), *(_intervals(second) if best != default else ()),
            ]
        )  # fmt: skip
    failed = [f"- {row.name} failed: `{row.error}`" for row in rows if row.error]
    shares = _shown(against_default, default)
    text = "\n".join([f"### {title}\n", table(header, lines), "", shares, *failed])
    values = {
        row.name: {
            "error": row.error, "seconds": row.seconds, "peak_bytes": row.peak_bytes,
            "against_default": msgspec.to_builtins(against_default.get(row.name)),
            "against_best": msgspec.to_builtins(against_best.get(row.name)),
        }
        for row in rows
    }  # fmt: skip
    return f"{text}\n", {"default": default, "best": best, "rows": values}


def _heads(name: str) -> tuple[str, str]:
    return f"SQNR less {name}'s", f"KL less {name}'s"


def _intervals(found: dict[Measure, Measured]) -> list[str]:
    """Return the differences of SQNR and KL from a baseline, which has none from itself."""
    cells = []
    for measured, form in ((found["sqnr_db"], "+.2f"), (found["kl"], "+.4f")):
        if measured.difference is None:
            cells.append("")
            continue
        low, high = measured.difference.low, measured.difference.high
        cells.append(f"{low:{form}} to {high:{form}}, {measured.verdict}")
    return cells


def _shown(found: dict[str, dict[Measure, Measured]], default: str) -> str:
    """Say where agreement, top-1 or top-5 is shown to differ from the default's."""
    shares: dict[Measure, str] = {"agreement": "agreement", "top1": "top-1", "top5": "top-5"}
    differing = [
        f"{name}'s {title} ({difference.low:+.2f} to {difference.high:+.2f} points)"
        for measure, title in shares.items()
        for name, one in found.items()
        for difference in [one[measure].difference]
        if difference is not None and difference.side != "level"
    ]
    told = ", ".join(differing) or "none of these"
    return f"Agreement, top-1 and top-5 that are shown to differ from {default}'s: {told}."
