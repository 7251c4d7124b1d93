"""Which conversions no other beats, against a plain reading of every pair."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np

from edgecls.drift.sweep import Point, with_front


def point(target: str, top1: float, size: int, latency: float | None) -> Point:
    return Point(
        model="net", name="int8", target=target, precision="int8", bundle="b", reached=True,
        top1=top1, lower=top1 - 1, upper=top1 + 1, drop=0.0, size_bytes=size, left_float=0,
        backend="litert", simulated=latency is None, latency_ms=latency,
    )  # fmt: skip


def test_the_front_is_what_none_dominates() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        points = [
            point(str(target), float(top1), int(size), float(latency))
            for target, top1, size, latency in generator.integers(0, 4, (12, 4))
        ]
        found = with_front(points)
        for one, other in itertools.product(found, found):
            if one.target != other.target:
                continue
            assert one.latency_ms is not None
            assert other.latency_ms is not None
            gains = (one.top1 - other.top1, other.size_bytes - one.size_bytes,
                     other.latency_ms - one.latency_ms)  # fmt: skip
            if min(gains) >= 0 and max(gains) > 0:
                assert not other.front
        for target in {one.target for one in found}:
            assert any(one.front for one in found if one.target == target)


def test_equals_are_both_on_the_front_and_targets_do_not_compete() -> None:
    same = [point("a", 90, 10, None), point("a", 90, 10, None), point("b", 10, 99, None)]

    assert [one.front for one in with_front(same)] == [True, True, True]
    missed = msgspec.structs.replace(point("a", 99, 1, None), reached=False)
    assert [one.front for one in with_front([*same, missed])] == [True, True, True, False]
    assert [one.front for one in with_front([*same, point("a", 91, 10, None)])] == [
        False, False, True, True,
    ]  # fmt: skip
