"""One pass over the calibration images: the table of ranges, and what the images were."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from ..calibration.collect import observe
from ..calibration.table import CalibrationTable, Parts, make_table, merge_tables
from ..calibration.table_file import read_table
from ..core.errors import CalibrationError, ImageError, UsageError
from ..core.files import sha256_bytes
from ..core.preprocess import Preprocess, resolve_preprocess
from ..core.progress import Progress
from ..core.ranges import DEFAULT_PERCENTILE, CalibrationMethod
from ..core.values import Tensor
from ..core.version import VERSION
from ..data.images import ImageFile, list_images, select_images
from ..data.stream import stream_pixels
from .graph import checked_graph, load_trained, resolve_input
from .samples import real_samples, synthetic_samples
from .sketch import Sketch
from .timing import Stages

_TOOLS: Final = ("numpy", "onnxruntime", "pillow")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """What to calibrate, as the command line has it.

    Attributes:
        source: The model.
        data: A folder of images.
        weights: A checkpoint.
        num_classes: Of the model's head.
        preprocess: A preset's name or a TOML file.
        images: How many of the images; None is all.
        method: How ranges are chosen.
        percentile: What the percentile method keeps, in percent.
        seed: Chooses the images.
        part: (i, n): only the i-th of n parts of the chosen images, counted from 1.
        allow_random_weights: Whether a model that nobody trained may be calibrated.
    """

    source: str
    data: Path
    weights: Path | None = None
    num_classes: int | None = None
    preprocess: str | None = None
    images: int | None = 100
    method: CalibrationMethod = "minmax"
    percentile: float = DEFAULT_PERCENTILE
    seed: int = 0
    part: tuple[int, int] | None = None
    allow_random_weights: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModel:
    """The graph that is calibrated, and what its images go through."""

    graph: onnx.ModelProto
    preprocess: Preprocess
    size: tuple[int, int]
    num_classes: int


def calibrate_model(options: CalibrateOptions, progress: Progress) -> CalibrationTable:
    """Load a model, make its float graph and return the table over a folder of images.

    Raises:
        EdgeclsError: With the cause's exit code.
    """
    images = calibration_images(options, progress)
    model = float_model(options, images, progress)
    return calibrate(
        model.graph,
        images,
        preprocess=model.preprocess,
        size=model.size,
        method=options.method,
        percentile=options.percentile,
        seed=options.seed,
        part=options.part,
        progress=progress,
    )


def calibration_images(options: CalibrateOptions, progress: Progress) -> tuple[ImageFile, ...]:
    """Return the images that were asked for, of all parts.

    Raises:
        DataError: There is none.
    """
    found = list_images(options.data)
    if options.images is not None and len(found) < options.images:
        progress.note(f"{options.data} has {len(found)} images, not {options.images}: all are used")
    return select_images(found, options.images, options.seed)


def float_model(
    options: CalibrateOptions, images: Sequence[ImageFile], progress: Progress
) -> FloatModel:
    """Return the graph that an export of the same model calibrates.

    Raises:
        EdgeclsError: The model cannot be loaded or converted, or is quantized already.
    """
    given = resolve_preprocess(options.preprocess) if options.preprocess else None
    loaded = load_trained(options, progress)
    preprocess, size = resolve_input(loaded, given)
    samples = real_samples(images, preprocess, size) or synthetic_samples(
        preprocess, size, options.seed
    )
    checked = checked_graph(
        loaded,
        preprocess=preprocess,
        size=size,
        tensors=preprocess.normalize(samples.pixels),
        stages=Stages(progress),
    )
    if checked.quantized:
        raise UsageError(f"{options.source} is quantized: its ranges are in its Q/DQ")
    return FloatModel(
        graph=checked.model, preprocess=preprocess, size=size, num_classes=checked.num_classes
    )


def calibrate(
    model: onnx.ModelProto,
    images: Sequence[ImageFile],
    *,
    preprocess: Preprocess,
    size: tuple[int, int],
    method: CalibrationMethod,
    seed: int,
    progress: Progress,
    percentile: float = DEFAULT_PERCENTILE,
    part: tuple[int, int] | None = None,
) -> CalibrationTable:
    """Return the table of a float graph over images.

    Images that cannot be read are left out, and said.

    Args:
        model: The float graph.
        images: All that were chosen.
        preprocess: What they go through.
        size: (height, width) of the model's input.
        method: How ranges are chosen.
        seed: What chose the images; provenance.
        progress: Shows how many are done.
        percentile: What the percentile method keeps.
        part: (i, n) observes only every n-th image, from the i-th on.

    Raises:
        CalibrationError: None of the images could be read.
        UsageError: There is no such part.
    """
    parts = None
    if part is not None:
        index, of = part
        if not 1 <= index <= of:
            raise UsageError(f"--part must be I/N with 1 <= I <= N, found {index}/{of}")
        if of > len(images):
            raise UsageError(f"{len(images)} images cannot be shared by {of} parts")
        if of > 1:
            names = "\n".join(image.name for image in images)
            chosen = sha256_bytes(names.encode("utf-8", "surrogateescape"))
            parts = Parts(of=of, held=(index,), chosen=chosen)
        images = images[index - 1 :: of]
    sketch = Sketch(preprocess.channels)
    tensors = image_tensors(images, preprocess, size, progress, sketch)
    return table_of(
        model, tensors, sketch, preprocess=preprocess, size=size, method=method,
        percentile=percentile, seed=seed, parts=parts,
    )  # fmt: skip


def table_of(
    model: onnx.ModelProto, tensors: Iterable[tuple[str, Tensor]], sketch: Sketch, *,
    preprocess: Preprocess, size: tuple[int, int], method: CalibrationMethod, seed: int,
    percentile: float = DEFAULT_PERCENTILE, parts: Parts | None = None,
) -> CalibrationTable:  # fmt: skip
    """Return the table of a float graph over tensors.

    Args:
        model: The float graph.
        tensors: Each image's hash and tensor (1, C, H, W); ``sketch`` sees its pixels.
        sketch: Takes the fingerprint.
        preprocess: As ``calibrate``, as all that follows.
        size: Likewise.
        method: Likewise.
        seed: Likewise.
        percentile: Likewise.
        parts: Which of the images these are.
    """
    seen = observe(model, tensors, on_logits=sketch.add_logits)
    return make_table(
        seen,
        preprocess=preprocess,
        size=size,
        method=method,
        percentile=percentile if method == "percentile" else None,
        seed=seed,
        parts=parts,
        tools=_tools(),
        fingerprint=sketch.fingerprint(),
    )


def merge_files(files: Sequence[Path]) -> CalibrationTable:
    """Return the table of all files' images.

    Raises:
        CalibrationError: A file is no table, or they do not belong together.
    """
    return functools.reduce(merge_tables, (read_table(file) for file in files))


def image_tensors(
    images: Sequence[ImageFile],
    preprocess: Preprocess,
    size: tuple[int, int],
    progress: Progress,
    sketch: Sketch,
) -> Iterator[tuple[str, Tensor]]:
    """Yield each readable image's hash and tensor (1, C, H, W); say which were left out.

    Raises:
        CalibrationError: None of the images could be read.
    """
    failed: list[ImageError] = []
    stream = stream_pixels(images, preprocess, size=size)
    for batch in progress.track(stream, "calibrating", len(images)):
        failed += [error for _, error in batch.errors]
        for digest, pixels in zip(batch.hashes, batch.pixels, strict=True):
            sketch.add_pixels(pixels)
            yield digest, preprocess.normalize(pixels[None])
    if len(failed) == len(images):
        raise CalibrationError(
            f"none of {len(images)} calibration images can be used, e.g. {failed[0]}"
        ) from failed[0]
    for error in failed[:3]:
        progress.note(f"calibration left out {error}")
    if len(failed) > 3:
        progress.note(f"calibration left out {len(failed) - 3} more images")


def _tools() -> dict[str, tuple[str, ...]]:
    found = {name: (importlib.metadata.version(name),) for name in _TOOLS}
    return {"edgecls": (VERSION,), **found}
