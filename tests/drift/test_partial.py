"""Partial results: the same sum in any order and grouping, as JSON too, in bounded memory."""

from __future__ import annotations

import itertools
import tracemalloc

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecls.core.errors import DataError
from edgecls.core.values import Logits
from edgecls.drift import Skipped, compare
from edgecls.drift.answers import answers_of
from edgecls.drift.baseline import keep
from edgecls.drift.metrics import add_logits
from edgecls.drift.partial import Partial

IMAGES, CLASSES = 48, 7


def drawn(seed: int, images: int = IMAGES) -> tuple[Logits, Logits, np.ndarray]:
    """Logits of all magnitudes, so that a sum of floats would depend on its order."""
    random = np.random.default_rng(seed)
    reference = random.normal(size=(images, CLASSES)) * 10.0 ** random.integers(-6, 7, (images, 1))
    candidate = reference + random.normal(size=reference.shape)
    truth = random.integers(0, CLASSES, images)
    return reference.astype(np.float32), candidate.astype(np.float32), truth


def partial_of(case: tuple[Logits, Logits, np.ndarray], start: int, end: int) -> Partial:
    reference, candidate, truth = (values[start:end] for values in case)
    names = [f"{index:03d}.png" for index in range(start, end)]
    found = Partial(images=end - start)
    if end > start:
        add_logits(found.comparison, names, reference, candidate, truth)
        found.agreement.add([reference.argmax(1), candidate.argmax(1)])
        answers = answers_of(candidate, truth, names=names)
        found.kept.update(zip(names, keep(["ab" * 32] * len(names), answers, truth), strict=True))
    found.skipped = [Skipped(image=f"bad-{start}.png", reason="cut short")]
    return found


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, IMAGES), max_size=8, unique=True),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40)
def test_any_grouping_and_order_give_the_same(seed: int, cuts: list[int], random: object) -> None:
    case = drawn(seed)
    edges = sorted({0, *cuts, IMAGES})
    parts = [partial_of(case, *pair) for pair in itertools.pairwise(edges)]
    sent = [Partial.from_json(part.to_json()) for part in parts]
    shuffled = list(sent)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    while len(shuffled) > 1:  # a tree, not a chain
        place = random.randrange(len(shuffled) - 1)  # type: ignore[attr-defined]
        shuffled[place].merge(shuffled.pop(place + 1))
    merged = Partial.from_json(shuffled[0].to_json())
    names = [f"{index:03d}.png" for index in range(IMAGES)]

    assert msgspec.json.encode(merged.comparison.result()) == msgspec.json.encode(
        compare(names, *case)
    )
    assert merged.agreement.result() == partial_of(case, 0, IMAGES).agreement.result()
    assert merged.images == IMAGES
    assert sorted(merged.kept) == names
    assert len(merged.skipped) == len(parts)


def test_an_empty_part_is_neutral() -> None:
    case = drawn(1)
    whole, empty = partial_of(case, 0, IMAGES), Partial()
    expected = whole.to_json()
    whole.merge(Partial.from_json(Partial().to_json()))
    empty.merge(whole)

    assert whole.to_json() == empty.to_json() == expected


def test_what_is_no_partial_result_is_refused() -> None:
    good = partial_of(drawn(2), 0, 8).to_json()

    for bad in (b"{}", b"[1]", b"nonsense", good.replace(b'"images":8', b'"images":"x"')):
        with pytest.raises(DataError, match="not a partial result"):
            Partial.from_json(bad)


def peak(images: int) -> int:
    """Return the most bytes that Python held while so many answers were counted and merged."""
    case = drawn(3, 1000)
    names = [f"{index:03d}.png" for index in range(1000)]
    tracemalloc.start()
    total = Partial()
    for _ in range(images // 1000):
        part = Partial(images=1000)
        add_logits(part.comparison, names, *case)
        total.merge(part)
    total.comparison.result()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.slow
def test_memory_is_bounded_by_classes_not_by_images() -> None:
    few, many = peak(10_000), peak(100_000)

    assert many < 1.05 * few
    assert many < 16 << 20
