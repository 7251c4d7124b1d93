"""TFLite Metadata, read back by a reader of the schema that shares nothing with the writer."""

from __future__ import annotations

import io
import struct
import zipfile
from functools import cache

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgecls.core.errors import GraphError
from edgecls.core.preprocess import PRESETS, Preprocess
from edgecls.export.tflite import add_metadata, for_phones, lower

BGR = Preprocess(color="bgr", scale=1.0, mean=(103.5, 116.25, 123.75), std=(57.5, 57.0, 58.5))
LABELS = ("cat", "dog, hound", "日本 é", "")


class Table:
    """A table of a flatbuffer, by the format's specification."""

    def __init__(self, data, at):
        self.data, self.at = data, at
        self.fields = at - struct.unpack_from("<i", data, at)[0]

    def _place(self, field):
        size = struct.unpack_from("<H", self.data, self.fields)[0]
        if 4 + 2 * field >= size:
            return None
        offset = struct.unpack_from("<H", self.data, self.fields + 4 + 2 * field)[0]
        return self.at + offset if offset else None

    def scalar(self, field, kind):
        place = self._place(field)
        return 0 if place is None else struct.unpack_from(f"<{kind}", self.data, place)[0]

    def _target(self, field):
        place = self._place(field)
        return None if place is None else place + struct.unpack_from("<I", self.data, place)[0]

    def table(self, field):
        return Table(self.data, self._target(field))

    def text(self, field):
        at = self._target(field)
        size = struct.unpack_from("<I", self.data, at)[0]
        return self.data[at + 4 : at + 4 + size].decode()

    def vector(self, field, kind):
        at = self._target(field)
        if at is None:
            return None
        return list(struct.unpack_from(f"<{struct.unpack_from('<I', self.data, at)[0]}{kind}",
                                       self.data, at + 4))  # fmt: skip

    def tables(self, field):
        at = self._target(field)
        offsets = self.vector(field, "I") or []
        return [Table(self.data, at + 4 + 4 * i + offset) for i, offset in enumerate(offsets)]


def classifier(lab, channels=3, classes=4):
    constants = {"w": lab.rng.normal(0, 0.3, (classes, channels, 3, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    return lab.graph(nodes, (1, channels, 8, 10), constants)


def files(lab, preprocess):
    """Return the float and the int8 file of a classifier."""
    model = classifier(lab, preprocess.channels)
    return lower(model).data, lower(lab.quantize(model)).data


@cache
def float_file(lab):
    return lower(classifier(lab)).data


def packed(data):
    """Return the root table of the metadata in a file."""
    model = schema.ModelT.InitFromPackedBuf(data)
    (entry,) = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
    buffer = bytes(model.buffers[entry.buffer].data)

    assert buffer[4:8] == b"M001"

    return Table(buffer, struct.unpack_from("<I", buffer)[0])


def named(data, preprocess=PRESETS["imagenet"], labels=LABELS):
    return add_metadata(
        data, preprocess=preprocess, labels=labels, name="a name", description="what it does"
    )


def run(data, inputs):
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for value in inputs:
        if source["dtype"] == np.int8:
            scale, zero_point = source["quantization"]
            value = np.rint(value / np.float32(scale)) + zero_point
            value = np.clip(value, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], value[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(result["index"])[0].copy())
    return np.stack(found), result["quantization"]


def pixels(lab, preprocess, count=8):
    return lab.rng.integers(0, 256, (count, 8, 10, preprocess.channels)).astype(np.uint8)


def test_what_is_stored(lab):
    root = packed(named(files(lab, PRESETS["imagenet"])[0]))

    (graph,) = root.tables(3)
    (image,), (logits,) = graph.tables(2), graph.tables(3)
    (file,) = logits.tables(6)
    assert (root.text(0), root.text(1), root.text(7)) == ("a name", "what it does", "1.0.0")
    assert (image.text(0), logits.text(0)) == ("image", "logits")
    # FeatureProperties, and no process unit: no score calibration.
    assert logits.table(3).scalar(0, "B") == 1
    assert logits.tables(4) == []
    assert (file.text(0), file.scalar(2, "b")) == ("labels.txt", 2)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize(
    ("preprocess", "color"),
    [(PRESETS["imagenet"], 1), (PRESETS["mnist"], 2), (BGR, 0)],
    ids=["rgb", "gray", "bgr"],
)
def test_normalisation_in_pixels(lab, preprocess, color, quantized):
    data = named(files(lab, preprocess)[quantized], preprocess)

    (image,) = packed(data).tables(3)[0].tables(2)
    content, (unit,), stats = image.table(3), image.tables(4), image.table(5)
    mean, std = (np.asarray(unit.table(1).vector(i, "f")) for i in (0, 1))
    assert content.scalar(0, "B") == 2
    assert content.table(1).scalar(0, "b") == color
    assert [content.table(1).table(1).scalar(i, "I") for i in (0, 1)] == [10, 8]
    assert unit.scalar(0, "B") == 1
    for index, code in ((1, 0), (0, 255)):
        expected = preprocess.table()[:, code]
        np.testing.assert_allclose((code - mean) / std, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(np.float32(stats.vector(index, "f")), expected)


def test_labels_lie_behind_the_model_as_they_are(lab):
    data = named(files(lab, PRESETS["imagenet"])[0])

    archive = zipfile.ZipFile(io.BytesIO(data))
    (info,) = archive.infolist()
    content = "cat\ndog, hound\n日本 é\n\n".encode()
    assert info.filename == "labels.txt"
    assert info.compress_type == zipfile.ZIP_STORED
    assert archive.read(info) == content
    # Stored, not compressed, and its place counted from the file's start: readers map it.
    assert data[info.header_offset : info.header_offset + 4] == b"PK\3\4"
    assert data[4:8] == b"TFL3"
    assert data.count(content) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=4, max_size=4))
def test_a_label_per_line_whatever_they_hold(lab, labels):
    data = named(float_file(lab), labels=tuple(labels))

    found = zipfile.ZipFile(io.BytesIO(data)).read("labels.txt").decode()
    lines = found.split("\n")
    assert len(lines) == 5
    assert lines[-1] == ""
    assert len(found.splitlines()) == 4
    for line, label in zip(lines[:-1], labels, strict=True):
        assert line == " ".join(label.splitlines())


def test_no_labels_no_archive(lab):
    data = named(files(lab, PRESETS["imagenet"])[0], labels=None)

    (logits,) = packed(data).tables(3)[0].tables(3)
    assert not zipfile.is_zipfile(io.BytesIO(data))
    assert logits.tables(6) == []


@pytest.mark.parametrize("quantized", [False, True])
def test_equal_models_are_equal_files(lab, quantized):
    data = files(lab, PRESETS["imagenet"])[quantized]

    once = named(data)
    assert once == named(data)
    # What is there already is replaced.
    assert len(schema.ModelT.InitFromPackedBuf(named(once)).metadata) == 1
    assert zipfile.ZipFile(io.BytesIO(named(once))).namelist() == ["labels.txt"]


@pytest.mark.parametrize("quantized", [False, True])
def test_answers_stay_bit_identical(lab, quantized):
    preprocess = PRESETS["imagenet"]
    data = files(lab, preprocess)[quantized]
    inputs = preprocess.normalize(pixels(lab, preprocess)).transpose(0, 2, 3, 1)

    before, after = run(data, inputs), run(named(data), inputs)

    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert len(np.unique(before[0])) > 4


def test_constants_stay_aligned(lab):
    data = named(files(lab, PRESETS["imagenet"])[1])

    root = schema.Model.GetRootAs(data)
    for index in range(root.BuffersLength()):
        table = root.Buffers(index)
        offset = table._tab.Offset(4)
        assert offset == 0 or table._tab.Vector(offset) % 16 == 0


@pytest.mark.parametrize("count", [0, 3, 5])
def test_other_number_of_labels(lab, count):
    with pytest.raises(GraphError, match=f"each of the 4 outputs, found {count}"):
        named(files(lab, PRESETS["imagenet"])[0], labels=("a",) * count)


@pytest.mark.parametrize("make", ["named", "phones"])
def test_only_classifiers(lab, make):
    data = lower(lab.one("Relu", (1, 3, 8, 8))).data
    with pytest.raises(GraphError, match=r"expected a classifier's TFLite file.*\(1, 3, 8, 8\)"):
        named(data) if make == "named" else for_phones(data, PRESETS["imagenet"])


@pytest.mark.parametrize("name", ["imagenet", "inception", "mnist", "bgr"])
@pytest.mark.parametrize("quantized", [False, True])
def test_phones_take_pixels_and_give_logits(lab, name, quantized):
    preprocess = BGR if name == "bgr" else PRESETS[name]
    data = files(lab, preprocess)[quantized]
    codes = pixels(lab, preprocess)
    inputs = preprocess.normalize(codes).transpose(0, 2, 3, 1)
    # A phone gives RGB, whatever the model wants.
    given = codes[..., ::-1] if name == "bgr" else codes

    phone = for_phones(data, preprocess)

    interpreter = Interpreter(model_content=phone)
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    expected, (scale, zero_point) = run(data, inputs)
    found, _ = run(phone, np.ascontiguousarray(given))
    assert (source["name"], source["dtype"]) == ("pixels", np.uint8)
    assert (result["name"], result["dtype"]) == ("y_dq" if quantized else "y", np.float32)
    if quantized:
        assert np.asarray(expected).dtype == np.int8
        steps = np.abs(found / np.float32(scale) + zero_point - expected)
        # A pixel halfway between two codes of the input may be rounded to either.
        assert steps.max() <= 1 + 1e-3
        assert (steps < 1e-3).mean() > 0.9
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    runner = interpreter.get_signature_runner("serving_default")
    np.testing.assert_array_equal(runner(pixels=given[:1])[result["name"]], found[:1])


def test_metadata_of_the_form_for_phones(lab):
    data = named(for_phones(files(lab, BGR)[1], BGR), BGR)

    (image,) = packed(data).tables(3)[0].tables(2)
    (unit,), stats = image.tables(4), image.table(5)
    assert image.table(3).table(1).scalar(0, "b") == 1
    assert [unit.table(1).vector(i, "f") for i in (0, 1)] == [[0.0], [1.0]]
    assert [stats.vector(i, "f") for i in (0, 1)] == [[255.0], [0.0]]


def test_phones_refuse_other_ends(lab):
    phone = for_phones(files(lab, BGR)[0], BGR)
    with pytest.raises(GraphError, match="expected 'pixels' to be float32, int8 or int16"):
        for_phones(phone, BGR)
    with pytest.raises(GraphError, match="expected an input of 1 channels"):
        for_phones(files(lab, BGR)[0], PRESETS["mnist"])
