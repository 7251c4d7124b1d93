"""Where marks stand: what is larger is further right, and all of it is on the drawing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls.drift.budgets import Measure
from edgecls.drift.confusion import Cell, ConfusionCounts
from edgecls.drift.explanation import cost_of
from edgecls.drift.gate import Check
from edgecls.drift.paired import Paired
from edgecls.drift.reliability import ConfidenceBin
from edgecls.reports.charts import (
    DIAGRAM,
    INTERVAL_WIDTH,
    check_interval,
    cost_intervals,
    reliability_marks,
)  # fmt: skip
from edgecls.reports.confusion import grids, most_confused


def check(measure: Measure, lower: float, value: float, upper: float, limit: float) -> Check:
    return Check(
        measure=measure, limit=limit, value=value, lower=lower, upper=upper, outcome="undecided"
    )


@given(
    st.sampled_from(["top1_drop", "agreement"]),
    st.lists(st.floats(0, 100), min_size=3, max_size=3),
    st.floats(0.01, 100),
)
def test_marks_are_in_order_and_on_the_drawing(
    measure: Measure, bounds: list[float], limit: float
) -> None:
    lower, value, upper = sorted(bounds)
    found = check_interval(check(measure, lower, value, upper, limit))

    assert found is not None
    assert 0 <= found.lower <= found.value <= found.upper <= INTERVAL_WIDTH
    assert 0 <= found.limit <= INTERVAL_WIDTH
    places = sorted([(lower, found.lower), (upper, found.upper), (limit, found.limit)])
    assert [place for _, place in places] == sorted(place for _, place in places)
    start, width = found.beyond
    end = start + width
    assert (start, end) == pytest.approx(
        (0, found.limit) if measure == "agreement" else (found.limit, INTERVAL_WIDTH), abs=0.1
    )
    assert len(found.ticks) >= 2
    assert all(0 <= place <= INTERVAL_WIDTH for place, _ in found.ticks)


def test_ticks_stand_at_their_values() -> None:
    found = check_interval(check("top1_drop", -1.9, -0.4, 0.5, 1.0))
    assert found is not None
    numbers = {float(text): place for place, text in found.ticks}

    assert set(numbers) == {-2.0, -1.0, 0.0, 1.0}
    assert numbers[1.0] == found.limit
    assert numbers[1.0] - numbers[0.0] == pytest.approx(numbers[0.0] - numbers[-1.0], abs=0.2)


def test_what_was_not_measured_has_no_drawing() -> None:
    nothing = Check(measure="class_drop", limit=10, value=None, lower=None, upper=None,
                    outcome="undecided")  # fmt: skip

    assert check_interval(nothing) is None


def test_costs_share_an_axis() -> None:
    few, many = cost_of(Paired(3, 3, 400)), cost_of(Paired(40, 4, 400))
    first, second = cost_intervals([few, many])

    assert first.ticks == second.ticks
    assert first.limit == second.limit == first.value, "no cost stands at zero"
    assert first.lower < first.limit < first.upper < second.value < second.upper
    numbers = {float(text): place for place, text in first.ticks}
    per_point = (numbers[10.0] - numbers[0.0]) / 10
    assert second.value - second.limit == pytest.approx(9 * per_point, abs=0.2)


def test_reliability() -> None:
    empty = ConfidenceBin(0, 0, 0.0)
    few, many = ConfidenceBin(10, 5, 2.5), ConfidenceBin(1000, 900, 980.0)
    first, second = reliability_marks([empty, few, empty, many])

    assert (first.x, first.y) == (DIAGRAM * 0.25, DIAGRAM * 0.5)
    assert (second.x, second.y) == (pytest.approx(DIAGRAM * 0.98), pytest.approx(DIAGRAM * 0.1))
    assert (first.images, first.confidence, first.accuracy) == (10, 25.0, 50.0)
    assert first.size < second.size


Case = list[tuple[int, int, int]]


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30), st.data())
def test_confusion_is_the_same_in_any_grouping(images: Case, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(images)))
    parts = []
    for part in (images[cut:], images[:cut]):
        counts = ConfusionCounts()
        counts.add(*np.asarray(part, np.int64).reshape(-1, 3).T)
        parts.append(counts)
    parts[0].merge(parts[1])
    expected = np.zeros((2, 4, 4), int)
    for truth, *answers in images:
        for side, answer in enumerate(answers):
            expected[side, truth, answer] += 1
    found = np.zeros_like(expected)
    for cell in parts[0].result():
        found[:, cell.truth, cell.answer] = cell.reference, cell.candidate

    assert np.array_equal(found, expected)
    assert all(cell.reference or cell.candidate for cell in parts[0].result())


CELLS = (Cell(0, 0, 9, 6), Cell(0, 1, 1, 4), Cell(1, 0, 2, 1), Cell(1, 1, 3, 4))


def test_grids() -> None:
    reference, candidate, change = grids(CELLS, 3)

    assert [[field.text for field in row] for row in reference.rows] == [
        ["9", "1", ""], ["2", "3", ""], ["", "", ""],
    ]  # fmt: skip
    assert [[field.text for field in row] for row in candidate.rows] == [
        ["6", "4", ""], ["1", "4", ""], ["", "", ""],
    ]  # fmt: skip
    assert [[(field.text, field.kind) for field in row[:2]] for row in change.rows[:2]] == [
        [("\N{MINUS SIGN}3", "worse"), ("+3", "worse")],
        [("\N{MINUS SIGN}1", "better"), ("+1", "better")],
    ]
    assert [field.shade for field in reference.rows[0]] == [5, 1, 0]
    assert [field.shade for field in change.rows[1]] == [2, 2, 0]


def test_most_confused() -> None:
    found = most_confused((*CELLS, Cell(2, 0, 7, 7), Cell(2, 1, 8, 8)), 3)

    assert [(cell.truth, cell.answer) for cell in found] == [(0, 1), (1, 0), (2, 1)]
