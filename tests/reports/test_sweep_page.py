"""A sweep's page: every number is there, each mark where its numbers say."""

from __future__ import annotations

import msgspec
import pytest

from edgecls.core.errors import UsageError
from edgecls.drift.sweep import Point, Sweep, with_front
from edgecls.reports.sweep import HEIGHT, WIDTH, check_sweep_path, plot, sweep_to_html

from .test_html import Page


def point(name: str, top1: float, size: int, latency: float | None) -> Point:
    return Point(
        name=name, target="jetson", precision="int8", bundle=f"out/{name}/jetson", reached=True,
        top1=top1, lower=top1 - 2, upper=top1 + 1, drop=95 - top1, size_bytes=size, left_float=3,
        backend="onnxruntime", simulated=latency is None, latency_ms=latency,
    )  # fmt: skip


POINTS = with_front(
    [point("int8", 90, 1_000_000, None), point("<b>fp16", 94, 2_000_000, None),
     point("worse", 89, 2_500_000, None)]
)  # fmt: skip
FOUND = Sweep(
    model="net", images=100, overlap=0, truth="by folders", float_top1=95.0, points=POINTS
)


def test_the_page_has_every_number_and_nothing_that_runs() -> None:
    text = sweep_to_html(FOUND)
    page = Page(text)
    rows = page.all("tr")[1:]

    assert len(rows) == 3
    assert "1. int8" in rows[0][1]
    assert "88.00 .. 91.00" in rows[0][1]
    assert "1.000" in rows[0][1]
    assert [row.split(" out/")[0].endswith("yes") for _, row in rows] == [True, True, False]
    assert "<b>" not in text
    assert not page.all("script")
    assert len(page.all("circle")) == 3


def test_marks_stand_in_the_order_of_their_numbers() -> None:
    drawn = plot("jetson", POINTS)
    x, y = [mark.x for mark in drawn.marks], [mark.y for mark in drawn.marks]

    assert drawn.cost == "size, MB"
    assert x[0] < x[1] < x[2] < WIDTH
    assert y[1] < y[0] < y[2]  # up is better
    assert all(0 < mark.high < mark.y < mark.low < HEIGHT for mark in drawn.marks)
    timed = [msgspec.structs.replace(one, latency_ms=3.0 - n) for n, one in enumerate(POINTS)]
    again = plot("jetson", timed)
    assert again.cost.startswith("latency")
    assert again.marks[0].x > again.marks[2].x


def test_another_ending_is_refused() -> None:
    from pathlib import Path

    with pytest.raises(UsageError, match=r"expected a name that ends in \.json or \.html"):
        check_sweep_path(Path("a.md"))
