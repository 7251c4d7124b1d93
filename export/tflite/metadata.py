"""TFLite Metadata: what Android's and MediaPipe's image classifiers read beside the model.

A flatbuffer of its own (identifier M001) says how an image becomes the input and which file names
the classes; it lies in a buffer of the model. The file with the names is a zip archive behind the
model, which the interpreter does not look at.

Source: the TFLite Metadata schema, version 1.5.0 (its history: fields are only ever appended).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.number_types import Int8Flags, Uint8Flags, Uint32Flags

from ...core.errors import GraphError
from ...core.preprocess import Preprocess
from .packing import ends, pack, text, unpack
from .writer import aligned_buffer

METADATA_NAME: Final = "TFLITE_METADATA"
LABELS_FILE: Final = "labels.txt"

_IDENTIFIER: Final = b"M001"

# Everything below was in the schema's first version.
_PARSER_VERSION: Final = "1.0.0"

# Members of the schema's enumerations and unions. It has no name for BGR.
_COLOR_SPACES: Final = {"rgb": 1, "gray": 2, "bgr": 0}
_TENSOR_AXIS_LABELS: Final = 2
_IMAGE_PROPERTIES: Final = 2
_FEATURE_PROPERTIES: Final = 1
_NORMALIZATION_OPTIONS: Final = 1

# A zip entry carries a time; the earliest there is, so that equal models are equal files.
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)


def add_metadata(
    tflite: bytes,
    *,
    preprocess: Preprocess,
    labels: tuple[str, ...] | None,
    name: str,
    description: str,
) -> bytes:
    """Return the file with TFLite Metadata packed into it; what it computes does not change.

    The output is declared as it is, logits: no score calibration is stored, and a client shows
    them as scores, in the right order but not as probabilities.

    A client resizes and crops in its own way; colours, mean and standard deviation are what it
    takes from here. The schema has no BGR: such a model's colour space is left unknown. MediaPipe
    and Android take the form that ``for_phones`` makes; other readers any.

    Args:
        tflite: A file with one subgraph, one input (1, H, W, C) and one output (1, classes).
        preprocess: Its mean and std are stored in units of a pixel's code, as clients expect
            them, for float and int8 inputs alike; an input of uint8 pixels needs neither (0, 1).
        labels: One per output, in order; None stores none. A line break inside one becomes a
            space: the stored file has a label per line.
        name: The model's name.
        description: What a reader is told about it.

    Returns:
        The model, then the zip archive; equal arguments give equal bytes.

    Raises:
        GraphError: The file has not that form, or another number of outputs than labels.
    """
    model = unpack(tflite)
    image, scores = ends(model)
    classes = int(scores.shape[-1])
    if labels is not None and len(labels) != classes:
        raise GraphError(
            f"expected a label for each of the {classes} outputs, found {len(labels)}; give the "
            "labels file that the model was trained with"
        )
    packed = _model_metadata(
        image, preprocess, has_labels=labels is not None, name=name, description=description
    )
    kept = [entry for entry in model.metadata or [] if text(entry.name) != METADATA_NAME]
    model.metadata = [*kept, _entry(len(model.buffers))]
    model.buffers.append(aligned_buffer(np.frombuffer(packed, np.uint8)))
    data = pack(model)
    return data if labels is None else _with_file(data, LABELS_FILE, _lines(labels))


def _entry(buffer: int) -> Any:
    made = schema.MetadataT()
    made.name = METADATA_NAME
    made.buffer = buffer
    return made


def _lines(labels: Sequence[str]) -> bytes:
    return "".join(" ".join(label.splitlines()) + "\n" for label in labels).encode()


def _with_file(data: bytes, name: str, content: bytes) -> bytes:
    """Append a zip archive with one file, stored as it is so that it can be mapped."""
    stream = io.BytesIO(data)
    info = zipfile.ZipInfo(name, _ZIP_TIME)
    # Not what this machine is: the bytes are the same everywhere.
    info.create_system = 3
    info.external_attr = 0o644 << 16
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(info, content)
    return stream.getvalue()


def _model_metadata(
    image: Any, preprocess: Preprocess, *, has_labels: bool, name: str, description: str
) -> bytes:
    """Return the packed metadata; a table is a mapping from a field's place in the schema."""
    tables = _Tables()
    graph = tables.table({
        2: tables.tables([_image(tables, image, preprocess)]),
        3: tables.tables([_logits(tables, has_labels=has_labels)]),
    })  # fmt: skip
    root = tables.table({
        0: tables.text(name),
        1: tables.text(description),
        3: tables.tables([graph]),
        7: tables.text(_PARSER_VERSION),
    })  # fmt: skip
    return tables.finish(root)


def _image(tables: _Tables, image: Any, preprocess: Preprocess) -> int:
    """Return the table of the input: its colours, its size, and what pixels go through."""
    color = preprocess.color
    low, high = (preprocess.table()[:, code].tolist() for code in (0, 255))
    mean = [preprocess.scale * mean for mean in preprocess.mean]
    std = [preprocess.scale * std for std in preprocess.std]
    if image.type == schema.TensorType.UINT8:
        # Pixels: the file itself normalises them and turns them to BGR.
        color = "gray" if color == "gray" else "rgb"
        mean, std, low, high = [0.0], [1.0], [0.0], [255.0]
    colors = {"rgb": "RGB", "gray": "grey", "bgr": "BGR"}[color]
    told = f"{colors} pixels 0..255, then (pixel - mean) / std."
    _, height, width, _ = (int(size) for size in image.shape)
    size = tables.table({0: (Uint32Flags, width), 1: (Uint32Flags, height)})
    properties = tables.table({0: (Int8Flags, _COLOR_SPACES[color]), 1: size})
    normalization = tables.table({0: tables.floats(mean), 1: tables.floats(std)})
    unit = tables.table({0: (Uint8Flags, _NORMALIZATION_OPTIONS), 1: normalization})
    return tables.table({
        0: tables.text("image"),
        1: tables.text(told),
        3: tables.table({0: (Uint8Flags, _IMAGE_PROPERTIES), 1: properties}),
        4: tables.tables([unit]),
        5: tables.table({0: tables.floats(high), 1: tables.floats(low)}),
    })  # fmt: skip


def _logits(tables: _Tables, *, has_labels: bool) -> int:
    """Return the table of the output and of the file that names its classes."""
    files = None
    if has_labels:
        file = tables.table({
            0: tables.text(LABELS_FILE),
            1: tables.text("The classes in the order of the outputs, one per line."),
            2: (Int8Flags, _TENSOR_AXIS_LABELS),
        })  # fmt: skip
        files = tables.tables([file])
    return tables.table({
        0: tables.text("logits"),
        1: tables.text("One logit per class; softmax makes them probabilities."),
        3: tables.table({0: (Uint8Flags, _FEATURE_PROPERTIES), 1: tables.table({})}),
        6: files,
    })  # fmt: skip


Field = int | tuple[Any, int] | None
"""An offset, a scalar (its type, its value), or nothing, which is not stored."""


class _Tables:
    """A flatbuffer of tables, innermost first, with no generated code."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)

    def text(self, value: str) -> int:
        return int(self._builder.CreateString(value))

    def floats(self, values: Iterable[float]) -> int:
        return int(self._builder.CreateNumpyVector(np.asarray(list(values), np.float32)))

    def tables(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def table(self, fields: Mapping[int, Field]) -> int:
        self._builder.StartObject(max(fields, default=-1) + 1)
        for place, field in fields.items():
            if isinstance(field, tuple):
                kind, value = field
                # The schema's default for each scalar used here is 0.
                self._builder.PrependSlot(kind, place, value, 0)
            elif field is not None:
                self._builder.PrependUOffsetTRelativeSlot(place, field, 0)
        return int(self._builder.EndObject())

    def finish(self, root: int) -> bytes:
        self._builder.Finish(root, _IDENTIFIER)
        return bytes(self._builder.Output())
