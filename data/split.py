"""A split that depends on what the images are, not on where they stand."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from .dataset import Dataset


def split_dataset(dataset: Dataset, *, held_out: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set by a seeded hash of each image's content, with the same share of each class.

    Equal images fall on the same side, whatever they are called. Of each class the share is
    rounded, but at least one image where it has two; where groups of equal images do not fit into
    it, less is held out. The order of the images does not matter, and the images that a smaller
    share holds out are among those of a larger one, where none are equal.

    Args:
        dataset: What to split; image files are read once, for their hashes.
        held_out: The share of the images to hold out, between 0 and 1.
        seed: Chooses among the splits.

    Returns:
        The images to train with and those held out, each in the data set's order.

    Raises:
        DataError: Nothing can be held out, or would be left.
        OSError: A file cannot be read.
        ValueError: ``held_out`` is no share.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must lie between 0 and 1, found {held_out}")
    wanted = {
        label: min(max(round(held_out * count), 1), count - 1)
        for label, count in enumerate(dataset.counts.tolist())
        if count
    }
    digests = [
        hashlib.sha256(f"{seed}:{dataset.digest(index)}".encode()).digest()
        for index in range(len(dataset))
    ]
    held = _choose(digests, dataset.labels.tolist(), wanted)
    if not len(held):
        raise DataError(
            f"{dataset.name}: nothing can be held out of {len(dataset)} images: each class needs "
            "two that differ"
        )
    rest = np.setdiff1d(np.arange(len(dataset)), held)
    return dataset.subset(rest), dataset.subset(held)


def split_by_content(
    images: NDArray[np.uint8], labels: NDArray[np.integer], *, held_out: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split a data set by a seeded hash of each image's bytes, balanced over the classes.

    Each class gives ``held_out / classes`` images. Two images with the same bytes always fall on
    the same side, so that nothing that is judged has been seen in training; where such a group
    does not fit into what its class still has to give, it is kept for training.

    Args:
        images: Shape (N, ...).
        labels: Class indices, shape (N,).
        held_out: How many images to hold out, over all classes.
        seed: Chooses among the splits.

    Returns:
        The indices to train with and those held out, each ascending.

    Raises:
        ValueError: ``held_out`` cannot be shared by the classes evenly, takes all of one, or
            cannot be had without tearing images with the same bytes apart.
    """
    classes = np.unique(labels)
    each, rest = divmod(held_out, len(classes))
    if rest or each < 1 or each >= min(int(np.sum(labels == label)) for label in classes):
        raise ValueError(f"{held_out} images cannot be held out evenly over {len(classes)} classes")
    digests = [hashlib.sha256(f"{seed}:".encode() + image.tobytes()).digest() for image in images]
    held = _choose(digests, labels.tolist(), {int(label): each for label in classes})
    if len(held) < held_out:
        raise ValueError("too many images have the same bytes to hold out as many of each class")
    return np.setdiff1d(np.arange(len(images)), held), held


def _choose(
    digests: Sequence[bytes], labels: Sequence[int], wanted: dict[int, int]
) -> NDArray[np.int64]:
    """Return the indices of the smallest digests, at most ``wanted`` of each class, ascending.

    Images with the same digest are taken together or not at all.
    """
    groups: dict[bytes, list[int]] = {}
    for index in sorted(range(len(digests)), key=lambda i: (digests[i], i)):
        groups.setdefault(digests[index], []).append(index)
    left = Counter(wanted)
    chosen: list[int] = []
    for group in groups.values():
        needed = Counter(labels[index] for index in group)
        if needed <= left:
            chosen += group
            left -= needed
    return np.sort(np.asarray(chosen, np.int64))
