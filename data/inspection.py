"""What is in a data set, and what is wrong with it, before anyone trains with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError
from ..core.files import sha256_bytes
from ..core.preprocess import Preprocess
from ..core.progress import Progress
from ..runtimes.images import open_image, read_regular_file
from ..runtimes.preprocess import to_pixels
from .dataset import Dataset
from .duplicates import Duplicates, Member, exact_duplicates, near_duplicates
from .likeness import thumbnail

SCHEMA_VERSION: Final = 1
IMBALANCED: Final = 10.0
"""From this ratio of the largest to the smallest class on, it is pointed out."""

_AHEAD: Final = 64
_AS_IT_IS: Final = Preprocess(resize=0, crop=0)


class Sides(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the images' widths or heights, in px."""

    smallest: int
    median: float
    largest: int


class Unreadable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image that cannot be read."""

    image: str
    reason: str


class SplitReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a part of a data set holds.

    Attributes:
        images: How many, also unreadable ones.
        counts: Images of each class, by index.
        width: None where no image can be read.
        height: Likewise.
        sizes: How many images have a size ("32x32", width first), the most frequent ten.
        modes: How many images have a mode of Pillow's: "RGB", "L", "CMYK", ...
        formats: How many have a file format: "JPEG", "PNG", ...; "memory" where there are no files.
        unreadable: Those that cannot be read.
    """

    images: int
    counts: tuple[int, ...]
    width: Sides | None
    height: Sides | None
    sizes: dict[str, int]
    modes: dict[str, int]
    formats: dict[str, int]
    unreadable: tuple[Unreadable, ...]


class DataReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a data set holds.

    Attributes:
        name: As the user called it.
        classes: Class names by index.
        splits: By name; one called "" where there are none.
        duplicates: Images with the same bytes.
        near_duplicates: Images that look the same; None where they were not looked for.
        imbalance: The largest class's images divided by the smallest's, over all splits; classes
            without any image do not count.
        faults: What must be mended, in words.
        remarks: What is worth a look, in words.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, SplitReport]
    duplicates: tuple[Duplicates, ...]
    near_duplicates: tuple[Duplicates, ...] | None
    imbalance: float
    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """Return the report as JSON, indented, ending with a newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def inspect(
    name: str, splits: Mapping[str, Dataset], progress: Progress, *, near: bool = True,
    workers: int = 2,
) -> DataReport:  # fmt: skip
    """Read every image once.

    Args:
        name: What the report calls the data set.
        splits: The parts, with the same classes.
        progress: Shows the images.
        near: Whether pictures that are alike are looked for: its time grows with the square of
            the number of images, a minute for 50,000.
        workers: Threads.
    """
    classes = next(iter(splits.values())).classes
    members: list[Member] = []
    digests: list[str] = []
    thumbnails: list[NDArray[np.float32]] = []
    reports: dict[str, SplitReport] = {}
    for split, dataset in splits.items():
        seen: list[_Seen] = []
        images = enumerate(_look_at_all(dataset, workers))
        said = f"reading {split}".rstrip()
        for index, found in progress.track(images, said, total=len(dataset)):
            seen.append(found)
            if not found.error:
                shown = "/".join(filter(None, (split, dataset.name_of(index))))
                label = classes[int(dataset.labels[index])]
                members.append(Member(name=shown, split=split, label=label))
                digests.append(found.digest)
                thumbnails.append(found.thumbnail)
        reports[split] = _report(dataset, seen)
    progress.step("looking for duplicates")
    exact = exact_duplicates(members, digests)
    alike = near_duplicates(members, digests, np.stack(thumbnails)) if near and members else None
    totals = np.sum([report.counts for report in reports.values()], axis=0)
    imbalance = float(totals.max() / totals[totals > 0].min())
    return DataReport(
        name=name,
        classes=classes,
        splits=reports,
        duplicates=exact,
        near_duplicates=alike,
        imbalance=imbalance,
        faults=_faults(reports, exact, classes),
        remarks=_remarks(exact, alike, imbalance, int((totals == 0).sum())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """An image that was looked at; ``error`` says why it cannot be read."""

    error: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    digest: str = ""
    thumbnail: NDArray[np.float32]


_NOTHING: Final = np.zeros(0, np.float32)


def _look_at_all(dataset: Dataset, workers: int) -> Iterator[_Seen]:
    """Yield what is seen of each image, in order, a bounded number of them ahead."""

    def look(index: int) -> _Seen:
        try:
            return _look(dataset, index)
        except ImageError as error:
            return _Seen(error=error.reason, thumbnail=_NOTHING)

    with ThreadPoolExecutor(workers, thread_name_prefix="edgecls-inspect") as pool:
        places = iter(range(len(dataset)))
        while chunk := list(islice(places, _AHEAD)):
            yield from pool.map(look, chunk)


def _look(dataset: Dataset, index: int) -> _Seen:
    source = dataset.source(index)
    if isinstance(source, np.ndarray):
        height, width, channels = source.shape
        return _Seen(
            width=width, height=height, mode="L" if channels == 1 else "RGB", format="memory",
            digest=dataset.digest(index), thumbnail=thumbnail(source),
        )  # fmt: skip
    data = read_regular_file(str(source))
    with open_image(str(source), data) as header:
        width, height = header.size
        mode, kind = header.mode, header.format or "unknown"
    pixels = to_pixels(data, _AS_IT_IS, name=str(source))
    return _Seen(
        width=width, height=height, mode=mode, format=kind, digest=sha256_bytes(data),
        thumbnail=thumbnail(pixels),
    )  # fmt: skip


def _report(dataset: Dataset, seen: list[_Seen]) -> SplitReport:
    good = [found for found in seen if not found.error]
    return SplitReport(
        images=len(dataset),
        counts=tuple(dataset.counts.tolist()),
        width=_sides([found.width for found in good]),
        height=_sides([found.height for found in good]),
        sizes=dict(Counter(f"{found.width}x{found.height}" for found in good).most_common(10)),
        modes=dict(Counter(found.mode for found in good).most_common()),
        formats=dict(Counter(found.format for found in good).most_common()),
        unreadable=tuple(
            Unreadable(image=dataset.name_of(index), reason=found.error)
            for index, found in enumerate(seen)
            if found.error
        ),
    )


def _sides(values: list[int]) -> Sides | None:
    if not values:
        return None
    return Sides(smallest=min(values), median=float(np.median(values)), largest=max(values))


def _faults(
    reports: Mapping[str, SplitReport], exact: tuple[Duplicates, ...], classes: tuple[str, ...]
) -> tuple[str, ...]:
    found = []
    for split, report in reports.items():
        where = f" of {split}" if split else ""
        if report.unreadable:
            found.append(
                f"{len(report.unreadable)} of {report.images} images{where} are unreadable"
            )
        absent = [
            classes[index]
            for index, count in enumerate(report.counts)
            if not count and any(other.counts[index] for other in reports.values())
        ]
        if absent:
            found.append(f"{len(absent)} classes{where} have no image, first {absent[0]!r}")
    kinds = {
        "splits": "images stand in more than one split: what is judged was trained with",
        "classes": "images stand in more than one class: a label is wrong",
    }
    for across, what in kinds.items():
        count = sum(group.across == across for group in exact)
        if count:
            found.append(f"{count} {what}")
    return tuple(found)


def _remarks(
    exact: tuple[Duplicates, ...],
    alike: tuple[Duplicates, ...] | None,
    imbalance: float,
    empty: int,
) -> tuple[str, ...]:
    found = []
    if empty:
        found.append(f"{empty} classes have no image in any split")
    twice = sum(len(group.images) - 1 for group in exact if group.across == "none")
    if twice:
        found.append(f"{twice} images are copies of others of their class")
    for across, where in (
        ("splits", "in different splits"),
        ("classes", "in different classes"),
        ("none", "in one class"),
    ):
        count = sum(group.across == across for group in alike or ())
        if count:
            found.append(f"{count} groups of images {where} look the same")
    if imbalance >= IMBALANCED:
        found.append(f"the largest class has {imbalance:.3g} times the images of the smallest")
    return tuple(found)
