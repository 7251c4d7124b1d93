"""A sweep's page: every number is there, each mark where its numbers say."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls.core.errors import UsageError
from edgecls.drift.sweep import Point, Sweep, SweptModel, with_front
from edgecls.reports.sweep import HEIGHT, WIDTH, check_sweep_path, plot, sweep_to_html, ticks

from .test_html import Page


def point(name: str, top1: float, size: int, latency: float | None) -> Point:
    return Point(
        model="net", name=name, target="jetson", precision="int8", bundle=f"out/{name}/jetson",
        reached=True, top1=top1, lower=top1 - 2, upper=top1 + 1, drop=95 - top1, size_bytes=size,
        left_float=3, backend="onnxruntime", simulated=latency is None, latency_ms=latency,
    )  # fmt: skip


POINTS = with_front(
    [point("int8", 90, 1_000_000, None), point("<b>fp16", 94, 2_000_000, None),
     point("worse", 89, 2_500_000, None)]
)  # fmt: skip
FOUND = Sweep(
    models=(SweptModel(name="net", float_top1=95.0),),
    images=100,
    overlap=0,
    truth="by folders",
    points=POINTS,
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


def test_numbers_of_close_marks_do_not_cover_each_other() -> None:
    close = [point(str(n), 90 + n / 50, 1_000_000 + 1000 * n, None) for n in range(8)]
    marks = plot("jetson", [*close, point("far", 80, 4_000_000, None)]).marks

    for one, other in itertools.combinations(marks, 2):
        assert abs(one.x - other.x) >= 20 or abs(one.label - other.label) >= 10
    assert marks[-1].label == pytest.approx(marks[-1].y + 4)


@given(low=st.floats(0, 100), span=st.floats(1e-3, 100))
def test_ticks_are_round_and_within(low: float, span: float) -> None:
    found = ticks(low, low + span)

    assert 2 <= len(found) <= 7
    assert low - 1e-6 <= found[0] < found[-1] <= low + span + 1e-6
    digits = {f"{(b - a):.1e}"[0] for a, b in itertools.pairwise(found)}
    assert digits in ({"1"}, {"2"}, {"5"})


def test_of_several_models_each_is_named() -> None:
    models = (SweptModel(name="net", float_top1=95.0), SweptModel(name="<i>small", float_top1=93.5))
    points = (*POINTS[:2], msgspec.structs.replace(POINTS[2], model="<i>small"))
    text = sweep_to_html(msgspec.structs.replace(FOUND, models=models, points=points))

    rows = [row for _, row in Page(text).all("tr")[1:]]
    assert "1. net, int8" in rows[0]
    assert "3. <i>small, worse" in rows[2]
    assert "95.00 % right" in Page(text).all("p")[1][1]
    assert "93.50 % right" in Page(text).all("p")[1][1]
    assert "<i>" not in text


def test_another_ending_is_refused() -> None:
    from pathlib import Path

    with pytest.raises(UsageError, match=r"expected a name that ends in \.json or \.html"):
        check_sweep_path(Path("a.md"))
