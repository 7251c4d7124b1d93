"""What coverage.py measured, as docs/coverage.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from coverage_models import CNNS, MODELS

_COLOUR: Final = "\\x1b\\[[0-9;]*m"


def document(results: dict[str, dict[str, Any]]) -> str:
    """Return the document."""
    lines = [_INTRODUCTION, "", *_summary(results)]
    for title, names in (
        ("Convolutional networks", [n for n in MODELS if n in CNNS]),
        ("Attention, token mixing, layer normalization", [n for n in MODELS if n not in CNNS]),
    ):
        lines += ["", f"## {title}", "", *_table((name, results[name]) for name in names)]
    failed = [(name, result["error"]) for name, result in results.items() if "error" in result]
    if failed:
        lines += ["", "## What does not convert", ""]
        # torch colours its messages.
        lines += [f"- `{name}`: {re.sub(_COLOUR, '', reason)}" for name, reason in failed]
    return "\n".join(lines) + "\n"


def _summary(results: dict[str, dict[str, Any]]) -> list[str]:
    """Say how many reached which goal."""
    in_float = [n for n, r in results.items() if r.get("float_difference", 1.0) <= 1e-4]
    whole = [n for n in CNNS if "layers" in results[n] and not results[n]["float_operators"]]
    layers = [result["layers"] for result in results.values() if "layers" in result]
    near = sum(one >= 0.99 and two >= 0.999 for one, two, _ in layers)
    return [
        f"{len(in_float)} of {len(results)} convert in float32 within 1e-4 of torch. "
        f"{len(layers)} convert in int8; of the {len(CNNS)} convolutional ones, {len(whole)} have "
        "every operator in int8. "
        f"{near} of {len(layers)} have at least 99 % of their codes within one step and 99.9 % "
        f"within two; the largest difference of an operator is "
        f"{max((int(most) for *_, most in layers), default=0)} step(s).",
    ]


def _table(results: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    lines = [
        "| Model | Image | Float diff. | Transposes | Int8 | Left float | Layers <= 1 | <= 2 "
        "| Logits <= 1 | Export s | Lower s |",
        "| --- | --: | --: | --: | --: | --- | --: | --: | --: | --: | --: |",
    ]
    for name, result in results:
        lines.append("| " + " | ".join(_row(name, result)) + " |")
    return lines


def _row(name: str, result: dict[str, Any]) -> list[str]:
    difference = result.get("float_difference")
    row = [f"`{name}`", str(MODELS[name]), "no" if difference is None else f"{difference:.1e}"]
    if "layers" not in result:
        return [*row, str(result.get("float_transposes", "")), "no", *[""] * 6]
    left = result["float_operators"]
    share = result["int8_operators"] / (result["int8_operators"] + sum(left.values()))
    seconds = result["seconds"]
    return [
        *row,
        f"{result['float_transposes']}, {result['int8_transposes']}",
        f"{share:.1%}",
        ", ".join(f"{count} {kind}" for kind, count in sorted(left.items())) or "-",
        *(f"{value:.2%}" for value in (*result["layers"][:2], result["ends"][0])),
        f"{seconds['torch -> ONNX']:.1f}",
        f"{seconds['lower']:.1f}",
    ]


_INTRODUCTION: Final = """\
# Coverage

What `make coverage` measured: architectures of timm and torchvision with random weights and batch
norm statistics, at the size of image given, through the whole chain: torch, ONNX, TFLite in
float32 and in int8 (calibrated on 8 synthetic images, min-max).

- **Float diff.**: LiteRT against torch, max|a-b| / max|a| over 4 images; the goal is 1e-4.
- **Transposes**: operators inserted to move axes, in the float and in the int8 file.
- **Int8**: share of the computing operators that run in int8; those left in float32 have a
  DEQUANTIZE and a QUANTIZE at their borders.
- **Layers <= 1, <= 2**: over all codes that computing operators make of one image, the share
  within one and two steps of ONNX Runtime's simulation of the same Q/DQ graph, each operator of
  the simulation being fed the very codes that LiteRT fed its own. Operators that only move or
  choose codes are not counted.
- **Logits <= 1**: the share of logits within one step at the end of the whole network. A step
  of difference is carried through all layers behind it, and these networks of random weights
  amplify it: the number says how much, and little about the conversion.
- **Export s** is torch to simplified ONNX, **Lower s** the float ONNX to TFLite, in seconds of a
  machine that was doing other work too."""
