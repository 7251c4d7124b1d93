"""The tables of ``quantized_graphs.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from common import table

from edgecls.core.values import Logits, relative_difference


@dataclass(frozen=True)
class Answers:
    """What a TFLite file answers beside the graph that it was made of, run by ONNX Runtime.

    Attributes:
        same_top1: Share of images with the same top-1, percent.
        difference: max|a - b| / max|a| over all logits.
        like_float: Share of images with the same top-1 from the graph and from the float network,
            percent: what the quantizer itself changed, to compare ``same_top1`` with.
        graph_top1: The graph's accuracy, percent; None where nothing is true of random weights.
        tflite_top1: The file's, likewise.
    """

    same_top1: float
    difference: float
    like_float: float
    graph_top1: float | None = None
    tflite_top1: float | None = None


@dataclass(frozen=True)
class Row:
    """A graph, and what edgecls made of it.

    Attributes:
        tool: Whose quantizer.
        way: How it was told to quantize.
        error: Why there is no more: the tool wrote no graph, or edgecls refused it.
        left: Nodes that stay in float without --calib; None where the export was refused.
        filled: Nodes that stay in float with --calib.
        lowest_codes: How many weight codes were -128.
        answers: Of the file made with --calib.
        tensorrt: What became of it for TensorRT.
    """

    tool: str
    way: str
    error: str = ""
    left: int | None = None
    filled: int | None = None
    lowest_codes: int = 0
    answers: Answers | None = None
    tensorrt: str = ""


def compared(
    network: Logits, graph: Logits, tflite: Logits, truth: Sequence[int] | None
) -> Answers:
    """Return how logits, (images, classes), of the float network and what came of it agree."""
    ours, theirs = tflite.argmax(1), graph.argmax(1)
    accuracy = [None if truth is None else _percent(top == np.asarray(truth))
                for top in (theirs, ours)]  # fmt: skip
    return Answers(
        _percent(ours == theirs), relative_difference(graph, tflite),
        _percent(theirs == network.argmax(1)), *accuracy,
    )  # fmt: skip


def report(title: str, rows: Sequence[Row]) -> str:
    """Return one network's table, and below it what failed."""
    real = any(row.answers is not None and row.answers.graph_top1 is not None for row in rows)
    header = ["tool", "how", "as it is", "filled", "codes -128"]
    header += ["top-1, graph -> TFLite"] if real else []
    header += ["graph like float", "TFLite like graph", "difference", "TensorRT-RTX"]
    lines = [f"### {title}\n", table(header, [_cells(row, real=real) for row in rows]), ""]
    lines += [f"- {row.tool}, {row.way}: `{row.error}`" for row in rows if row.error]
    return "\n".join(lines) + "\n"


def _cells(row: Row, *, real: bool) -> list[str]:
    blank = [""] * (4 if real else 3)
    if row.error:
        return [row.tool, row.way, "failed", "", "", *blank, row.tensorrt]
    cells = [row.tool, row.way, _count(row.left), _count(row.filled), str(row.lowest_codes or "")]
    found = row.answers
    if found is None:
        return [*cells, *blank, row.tensorrt]
    if real:
        cells.append(f"{found.graph_top1:.1f} -> {found.tflite_top1:.1f}")
    cells += [f"{found.like_float:.1f}", f"{found.same_top1:.1f}", f"{found.difference:.3f}"]
    return [*cells, row.tensorrt]


def _count(nodes: int | None) -> str:
    return "refused" if nodes is None else str(nodes)


def _percent(right: np.ndarray) -> float:
    return 100 * float(right.mean())
