"""The schema of ``manifest.json``."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from ..core.fingerprint import Fingerprint
from ..core.preprocess import PixelStep, Preprocess
from ..core.ranges import CalibrationMethod
from ..core.values import ArtefactFormat, Precision, StepCheck, TensorSpec
from .recipe import Recipe

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
MAX_FILE_BYTES: Final = 2 << 30
MANIFEST_HASH: Final = "manifest.sha256"


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle."""

    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]
    sha256: str


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the model comes from.

    Attributes:
        source: As given to export, e.g. "timm:resnet18".
        weights_sha256: Hash of the weights file; None where the source brought its own weights.
        parameters: How many numbers were learned; None for a graph that came as ONNX.
        graph_sha256: Hash of the simplified float graph that was calibrated.
    """

    source: str
    weights_sha256: str | None
    parameters: int | None
    graph_sha256: str


class Artefact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that a runtime takes.

    Attributes:
        path: Inside the bundle.
        precision: Of its arithmetic; an int8 graph runs what is not quantized in the target's base
            precision.
        input: As the file declares it; NHWC for TFLite, NCHW for ONNX.
        output: As the file declares it: the logits.
        quantized: How many operators compute in int8, or on int16 activations and int8 weights.
        left_float: Names of the operators that do not, in an int8 artefact; in an int8-dynamic one
            those with weights. Weights that are merely stored as int8 or FP16 count as float, and
            neither is given where nothing computes in int8.
        calibration_cache: Of an "onnx-calibrated" file: the path of TensorRT's calibration cache.
    """

    path: str
    format: ArtefactFormat
    precision: Precision
    input: TensorSpec
    output: TensorSpec
    quantized: int = 0
    left_float: tuple[str, ...] = ()
    calibration_cache: str | None = None


class CalibrationInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which images and which method gave the ranges; the fields are ``RangeTable``'s."""

    method: CalibrationMethod
    images: int
    seed: int
    data_sha256: str
    table_sha256: str
    percentile: float | None = None
    learned: int = 0


class Tuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an int8 bundle was fitted to an accuracy budget; estimates, on the tuning images.

    Attributes:
        repairs: What was kept of the recipe, in the order in which it was applied.
        left_float: The layers left in float, by their convolution or matrix product.
        max_drop: The budget in points of top-1; None where there was none.
        drop: Points of top-1 lost on the tuning images, in simulation.
        images: How many of them.
        data_sha256: Hash over the images' bytes, in the order of their own hashes.
        graded: Whether they have ground truth; else changed answers count as lost.
    """

    repairs: tuple[str, ...]
    left_float: tuple[str, ...]
    max_drop: float | None
    drop: float
    images: int
    data_sha256: str
    graded: bool


class GoldenSample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image with what it must become.

    Attributes:
        image: The image file, as it was.
        pixels: The pixels after resize and crop, as a lossless PNG.
        logits: By artefact path: the file of its float32 logits, shape (classes,), little-endian.
        steps: The hash of what each step of the preprocessing gave; see ``runtimes.steps``. Empty
            in bundles of older versions, as is ``tensors``.
        tensors: By artefact path: the hash of what the file is fed for the pixels, in its dtype and
            layout, without the batch's axis.
    """

    image: str
    pixels: str
    logits: dict[str, str]
    steps: dict[PixelStep, str] = {}
    tensors: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a device needs to know, and where it comes from.

    The primary artefact, the first, is the one of the bundle's precision in the format that the
    target ships; others follow. Two exports from the same inputs with the same tools give the same
    manifest, byte for byte: no date, no path of the machine; only the times in ``recipe``, which
    ``edgecls recipe`` adds to what it exported, are measured anew. ``labels`` and ``synsets``
    (WordNet's identifiers, by which image folders are often named) stand in the order of the
    outputs.
    """

    target: str
    precision: Precision
    model: ModelInfo
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    num_classes: int
    artefacts: tuple[Artefact, ...]
    steps: tuple[StepCheck, ...]
    golden: tuple[GoldenSample, ...]
    golden_source: Literal["calibration", "synthetic"]
    tools: dict[str, str]
    files: dict[str, FileEntry]
    synsets: tuple[str, ...] | None = None
    calibration: CalibrationInfo | None = None
    fingerprint: Fingerprint | None = None
    tuning: Tuning | None = None
    recipe: Recipe | None = None
    schema_version: int = SCHEMA_VERSION
