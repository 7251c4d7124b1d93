"""A split that depends on what the images are, not on where they stand."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


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
    groups: dict[bytes, list[int]] = {}
    for index in sorted(range(len(images)), key=lambda i: (digests[i], i)):
        groups.setdefault(digests[index], []).append(index)
    left = {int(label): each for label in classes}
    chosen: list[int] = []
    for group in groups.values():
        wanted = [int(labels[index]) for index in group]
        if all(wanted.count(label) <= left[label] for label in wanted):
            chosen += group
            for label in wanted:
                left[label] -= 1
    if any(left.values()):
        raise ValueError("too many images have the same bytes to hold out as many of each class")
    held = np.sort(np.asarray(chosen, np.int64))
    return np.setdiff1d(np.arange(len(images)), held), held
