from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgecls.core.errors import DataError
from edgecls.data.dataset import Dataset
from edgecls.data.split import split_by_content, split_dataset

# Few codes: many images are equal, some of them with two labels.
IMAGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), min_size=6, max_size=120)


def dataset(images: list[tuple[int, int]]) -> Dataset:
    codes = np.asarray([code for code, _ in images], np.uint8)
    return Dataset(
        name="made",
        classes=("a", "b", "c"),
        labels=np.asarray([label for _, label in images], np.int64),
        pixels=np.broadcast_to(codes[:, None, None, None], (len(images), 2, 2, 1)).copy(),
    )


def contents(found: Dataset) -> list[tuple[int, int]]:
    assert found.pixels is not None
    return [
        (int(pixels[0, 0, 0]), label)
        for pixels, label in zip(found.pixels, found.labels.tolist(), strict=True)
    ]


def split(images: list[tuple[int, int]], share: float, seed: int) -> tuple[Dataset, Dataset]:
    try:
        return split_dataset(dataset(images), held_out=share, seed=seed)
    except DataError:
        assume(False)
        raise


@given(IMAGES, st.floats(0.05, 0.9), st.integers(0, 9))
def test_a_split_loses_nothing_and_parts_no_equal_images(images, share, seed) -> None:
    train, held = split(images, share, seed)

    assert sorted(contents(train) + contents(held)) == sorted(images)
    assert not {code for code, _ in contents(train)} & {code for code, _ in contents(held)}
    for label in range(3):
        count = sum(own == label for _, own in images)
        wanted = min(max(round(share * count), 1), count - 1) if count else 0
        assert held.counts[label] <= wanted


@given(IMAGES, st.randoms(use_true_random=False), st.integers(0, 9))
def test_a_split_does_not_depend_on_the_order(images, random, seed) -> None:
    other = list(images)
    random.shuffle(other)

    assert sorted(contents(split(images, 0.3, seed)[1])) == sorted(
        contents(split(other, 0.3, seed)[1])
    )


def test_without_equal_images_the_shares_are_exact_and_nested() -> None:
    images = [(code, code % 2) for code in range(100)]

    small, large = (set(contents(split(images, share, 4)[1])) for share in (0.1, 0.3))

    assert len(small) == 10
    assert len(large) == 30
    assert small < large
    assert sum(label for _, label in small) == 5
    assert set(contents(split(images, 0.1, 5)[1])) != small


def test_a_split_that_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="nothing can be held out"):
        split_dataset(dataset([(1, 0), (1, 0), (1, 1)]), held_out=0.5, seed=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_dataset(dataset([(1, 0), (2, 0)]), held_out=1.0, seed=0)


def test_exact_numbers_are_held_out_or_refused() -> None:
    made = dataset([(code, code % 3) for code in range(30)])
    assert made.pixels is not None

    train, held = split_by_content(made.pixels, made.labels, held_out=6, seed=1)

    assert np.bincount(made.labels[held]).tolist() == [2, 2, 2]
    assert sorted([*train, *held]) == list(range(30))
    with pytest.raises(ValueError, match="evenly"):
        split_by_content(made.pixels, made.labels, held_out=7, seed=1)
    with pytest.raises(ValueError, match="same bytes"):
        split_by_content(made.pixels * 0, made.labels, held_out=6, seed=1)
