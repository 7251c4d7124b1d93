"""Every kind of fault, planted in a bundle that is otherwise right, is found and named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from edgecls.bundle import Bundle
from edgecls.calibration.table_file import write_table
from edgecls.core.progress import Quiet
from edgecls.export.tflite.writer import aligned_buffer, packed
from edgecls.workflows.calibrate import CalibrateOptions, calibrate_model

from .conftest import drawing

if TYPE_CHECKING:
    from edgecls.drift.explanation import Explanation, StageFinding

    from .conftest import Signs

PREPROCESS: Any = drawing.PREPROCESS


def blamed(found: Explanation) -> list[str]:
    return [stage.stage for stage in found.stages if stage in found.blamed]


def stage_of(found: Explanation, name: str) -> StageFinding:
    return next(stage for stage in found.stages if stage.stage == name)


@pytest.mark.parametrize("target", ["raspberry-pi", pytest.param("jetson", marks=pytest.mark.slow)])
def test_an_honest_bundle_blames_nothing(signs: Signs, target: str) -> None:
    found = signs.explained(signs.bundle(target))

    assert found.measure == "top1"
    assert found.images == 160
    assert found.reference_percent >= 98
    assert blamed(found) == []
    assert {"data", "channel order", "resize and crop", "normalisation", "label map"} <= set(
        found.same
    )
    assert not any(layer.departs for layer in found.layers)
    assert len(found.layers) == 5, "the layers with the largest errors"


FAULTS = [
    ("channel order", {"color": "bgr"}, "RGB", "BGR"),
    ("normalisation", {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
     "mean 0.5 0.5 0.5", "mean 0.485 0.456 0.406"),
    ("resize and crop", {"resize": (32, 32), "crop": 0}, "centre crop 32x32", "squashed to 32x32"),
    ("interpolation", {"antialias": False}, "with antialiasing", "without antialiasing"),
    ("interpolation", {"interpolation": "nearest"}, "bilinear with", "nearest without"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "fields", "expected", "said"), FAULTS)
def test_a_fault_in_the_preprocessing(
    signs: Signs, tmp_path: Path, stage: str, fields: dict[str, Any], expected: str, said: str
) -> None:
    wrong = msgspec.structs.replace(PREPROCESS, **fields)
    found = signs.explained(signs.faulty(tmp_path / "b", preprocess=wrong))
    only = stage_of(found, stage)

    assert blamed(found) == [stage]
    assert expected in only.expected
    assert said in only.found
    assert only.cost.points >= 10
    assert only.cost == only.alone, "nothing else differs before it"
    assert f"{stage}: expected" in only.sentence()
    assert "points [" in only.sentence()


def test_the_costs_of_several_faults_add_up_and_each_is_seen(signs: Signs, tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(
        PREPROCESS, color="bgr", resize=(32, 32), crop=0, antialias=False, mean=(0.1, 0.1, 0.1)
    )
    names = (*drawing.CLASSES[1:], drawing.CLASSES[0])
    bundle = signs.faulty(tmp_path / "b", preprocess=wrong, labels=names)
    found = signs.explained(bundle)

    assert blamed(found) == [
        "channel order", "resize and crop", "interpolation", "normalisation", "label map",
    ]  # fmt: skip
    assert sum(stage.cost.lost - stage.cost.gained for stage in found.stages) == (
        found.total.lost - found.total.gained
    )
    assert sum(stage.cost.points for stage in found.stages) == pytest.approx(found.total.points)


def with_scale(data: bytes, tensor: str, factor: float) -> bytes:
    """Return a TFLite file with another scale of one tensor, and of the PAD that shares it."""
    model = schema.ModelT.InitFromPackedBuf(data)
    tensors = {item.name.decode(): item for item in model.subgraphs[0].tensors}
    for item in (tensors[tensor], tensors.get(f"{tensor}_pad")):
        if item is not None:
            item.quantization.scale = np.asarray(item.quantization.scale * factor, np.float32)
    for index, buffer in enumerate(model.buffers):
        content = None if buffer.data is None else np.asarray(buffer.data, np.uint8)
        model.buffers[index] = aligned_buffer(content)
    return packed(model, len(data))


@pytest.mark.parametrize(
    ("tensor", "factor"),
    [
        ("relu_1", 0.125),
        pytest.param("relu_1", 16.0, marks=pytest.mark.slow),
        pytest.param("relu_2", 0.125, marks=pytest.mark.slow),
        pytest.param("relu_2", 16.0, marks=pytest.mark.slow),
    ],
)
def test_a_wrong_scale_in_a_tflite_file(
    signs: Signs, tmp_path: Path, tensor: str, factor: float
) -> None:
    bundle = signs.faulty(tmp_path / "b", change=lambda data: with_scale(data, tensor, factor))
    found = signs.explained(bundle)
    file = stage_of(found, "file")
    first = found.layers[0]

    assert blamed(found) == ["file"]
    assert file.cost.points >= 10
    assert f"{tensor} with scale" in file.expected
    assert first.departs
    assert (first.name, first.operator) == (tensor, "Relu")
    assert first.scale is not None
    assert first.planned_scale is not None
    assert first.scale / first.planned_scale == pytest.approx(factor, rel=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.125, 100.0])
def test_a_wrong_scale_in_an_onnx_file(signs: Signs, tmp_path: Path, factor: float) -> None:
    def change(data: bytes) -> bytes:
        model = onnx.ModelProto.FromString(data)
        constants = {item.name: item for item in model.graph.initializer}
        pair = [node for node in model.graph.node if node.name.startswith("relu_1_to_")]
        assert [node.op_type for node in pair] == ["QuantizeLinear", "DequantizeLinear"]
        old = numpy_helper.to_array(constants[pair[0].input[1]])
        new = numpy_helper.from_array((old * factor).astype(old.dtype), "wrong")
        model.graph.initializer.append(new)
        for node in pair:
            node.input[1] = "wrong"
        return model.SerializeToString()

    bundle = signs.faulty(tmp_path / "b", target="jetson", change=change)
    found = signs.explained(bundle)

    assert blamed(found) == ["file"]
    assert "relu_1_to_" in stage_of(found, "file").expected
    assert found.layers[0].departs
    assert found.layers[0].name == "relu_1"


@pytest.mark.slow
def test_other_weights(signs: Signs, tmp_path: Path) -> None:
    """A file whose weights were damaged: the scales are right, the codes of one layer are not."""

    def change(data: bytes) -> bytes:
        model = schema.ModelT.InitFromPackedBuf(data)
        graph = model.subgraphs[0]
        names = [tensor.name.decode() for tensor in graph.tensors]
        (layer,) = [o for o in graph.operators if names[o.outputs[0]] == "relu_2"]
        weights = graph.tensors[layer.inputs[1]]
        codes = np.asarray(model.buffers[weights.buffer].data).tobytes()
        assert data.count(codes) == 1
        return data.replace(codes, np.frombuffer(codes, np.int8)[::-1].tobytes())

    found = signs.explained(signs.faulty(tmp_path / "b", change=change))

    assert blamed(found) == ["file"]
    assert "the reference's weights" in stage_of(found, "file").expected
    assert found.layers[0].name == "relu_2"
    assert found.layers[0].departs


def test_a_swapped_label_map(signs: Signs, tmp_path: Path) -> None:
    names = list(drawing.CLASSES)
    names[1], names[4] = names[4], names[1]
    found = signs.explained(signs.faulty(tmp_path / "b", labels=tuple(names)))
    only = stage_of(found, "label map")

    assert blamed(found) == ["label map"]
    assert only.expected == "output 1 is 'red plain ellipse'"
    assert only.found == "'blue plain disc'; 2 of 8 outputs have another name"
    assert only.cost.points == pytest.approx(25, abs=1), "two classes of eight"


def test_lossy_data_against_the_originals(signs: Signs, tmp_path: Path) -> None:
    lossy = drawing.reencode(signs.judged, tmp_path / "lossy", 5)
    found = signs.explained(signs.bundle(), data=lossy, originals=signs.judged)
    only = stage_of(found, "data")

    assert blamed(found) == ["data"]
    assert only.expected == "PNG"
    assert only.found == "JPEG, quality about 5; 160 of 160 files differ"
    assert only.cost.points >= 10


@pytest.mark.slow
def test_a_mild_loss_costs_nothing(signs: Signs, tmp_path: Path) -> None:
    mild = drawing.reencode(signs.judged, tmp_path / "mild", 95)
    found = signs.explained(signs.bundle(), data=mild, originals=signs.judged)

    assert blamed(found) == []
    assert stage_of(found, "data").found.startswith("JPEG, quality about 95")


def test_manifest_is_what_the_faults_are_in(signs: Signs, tmp_path: Path) -> None:
    """The faulty copies are bundles that a device would take without a word."""
    bundle = Bundle(signs.faulty(tmp_path / "b", preprocess=PREPROCESS))
    bundle.verify()

    assert bundle.manifest.preprocess == PREPROCESS


def test_the_bundles_own_table_gives_the_very_file_that_ships(signs: Signs, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    made = calibrate_model(
        CalibrateOptions(
            source=str(signs.graph), data=signs.root / "calibration", images=64,
            preprocess=str(signs.preprocess),
        ),
        Quiet(),
    )  # fmt: skip
    write_table(table, made)
    honest = signs.explained(signs.bundle(), calib_table=table)
    slightly = signs.faulty(tmp_path / "b", change=lambda data: with_scale(data, "relu_1", 1.02))
    found = signs.explained(slightly, calib_table=table)

    assert "file" in honest.same
    assert stage_of(found, "file").expected.startswith("relu_1 with scale")
    assert "(1.02 times)" in stage_of(found, "file").found
    assert found.blamed == ()
