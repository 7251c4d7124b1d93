"""Models that come as files: ONNX graphs and exported programs."""

from __future__ import annotations

import io
import json
import pickle  # noqa: TID251 -- writes the hostile files that must be refused
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgecls.core.errors import GraphError, ModelError, UsageError
from edgecls.models import load_model


def graph(
    *,
    shape: tuple[Any, ...] = ("batch", 3, 8, 8),
    dtype: int = TensorProto.FLOAT,
    outputs: int = 1,
    inputs: int = 1,
    weights: np.ndarray | None = None,
    output_shape: tuple[Any, ...] = ("batch", 4),
) -> onnx.ModelProto:
    """Return a small classifier: global pooling, then a matrix product."""
    if weights is None:
        weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    ins = [helper.make_tensor_value_info(f"image{i}", dtype, shape) for i in range(inputs)]
    outs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, output_shape)]
    if outputs == 2:
        outs.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ("batch", 3)))
    nodes = [
        helper.make_node("GlobalAveragePool", ["image0"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    initializers = [numpy_helper.from_array(weights, "w")]
    made = helper.make_graph(nodes, "g", ins, outs, initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_graph(tmp_path: Path) -> None:
    onnx.save(graph(), tmp_path / "m.onnx")

    loaded = load_model(str(tmp_path / "m.onnx"))

    assert loaded.module is None
    assert loaded.onnx is not None
    assert onnx.load_from_string(loaded.onnx) == graph()
    assert (loaded.input_size, loaded.fixed_batch, loaded.num_classes) == ((3, 8, 8), None, 4)
    assert not loaded.random_weights


def test_graph_of_one_batch_size(tmp_path: Path) -> None:
    onnx.save(graph(shape=(1, 3, 8, 8)), tmp_path / "m.onnx")

    assert load_model(str(tmp_path / "m.onnx")).fixed_batch == 1


def test_graph_of_other_classes_than_asked(tmp_path: Path) -> None:
    onnx.save(graph(), tmp_path / "m.onnx")

    with pytest.raises(UsageError, match="has 4 classes, not 5"):
        load_model(str(tmp_path / "m.onnx"), num_classes=5)


def nan() -> np.ndarray:
    weights = np.ones((3, 4), np.float32)
    weights[1, 1] = np.nan
    return weights


def unknown_operator() -> onnx.ModelProto:
    model = graph()
    model.graph.node[0].op_type = "NoSuchOperator"
    return model


def unconnected() -> onnx.ModelProto:
    model = graph()
    model.graph.node[1].input[0] = "nowhere"
    return model


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: graph(inputs=2), "one input, found 2: image0, image1"),
        (lambda: graph(outputs=2), "one output, found 2: logits, flat"),
        (lambda: graph(shape=("batch", 3, 8)), "batch, channels, height, width"),
        (lambda: graph(shape=("batch", 8, 8, 3)), "1 or 3 channels on axis 1"),
        (lambda: graph(dtype=TensorProto.UINT8), "of UINT8"),
        (lambda: graph(output_shape=("batch", 4, 1, 1)), r"\(batch, classes\)"),
        (lambda: graph(weights=nan()), "NaN in the weights 'w'"),
        (unknown_operator, "not a valid ONNX graph"),
        (unconnected, "not a valid ONNX graph"),
        (onnx.ModelProto, "no operators"),
    ],
)
def test_graph_that_cannot_be_used(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], expected: str
) -> None:
    (tmp_path / "m.onnx").write_bytes(make().SerializeToString())

    with pytest.raises(GraphError, match=expected) as error:
        load_model(str(tmp_path / "m.onnx"))

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04", bytes(1000)])
def test_file_that_is_no_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)

    with pytest.raises(GraphError, match=r"m\.onnx"):
        load_model(str(tmp_path / "m.onnx"))


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keep=st.floats(0, 0.999))
def test_graph_truncated_at_any_byte(tmp_path: Path, keep: float) -> None:
    data = graph().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data[: int(len(data) * keep)])

    with pytest.raises(GraphError):
        load_model(str(tmp_path / "m.onnx"))


def external(tmp_path: Path, location: str) -> Path:
    """Write a graph whose weights are said to stand at ``location``."""
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(
        graph(),
        folder / "m.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_external_weights_beside_the_graph(tmp_path: Path) -> None:
    loaded = load_model(str(external(tmp_path, "w.bin")))

    assert loaded.onnx is not None
    model = onnx.load_from_string(loaded.onnx)
    expected = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), expected)


@pytest.mark.parametrize("location", ["../outside.bin", "a/../../outside.bin", "{}/outside.bin"])
def test_external_weights_elsewhere(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(48))
    path = external(tmp_path, location.format(tmp_path))

    with pytest.raises(GraphError, match="outside its folder"):
        load_model(str(path))


def test_external_weights_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(48))
    path = external(tmp_path, "link.bin")
    (path.parent / "link.bin").symlink_to(tmp_path / "outside.bin")

    with pytest.raises(GraphError, match="outside its folder"):
        load_model(str(path))


def test_external_weights_missing(tmp_path: Path) -> None:
    path = external(tmp_path, "gone.bin")

    with pytest.raises(GraphError, match=r"'gone\.bin' is missing"):
        load_model(str(path))


def test_external_weights_too_short(tmp_path: Path) -> None:
    path = external(tmp_path, "short.bin")
    (path.parent / "short.bin").write_bytes(bytes(7))

    with pytest.raises(GraphError):
        load_model(str(path))


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.bn = torch.nn.BatchNorm2d(4)
        self.offset = torch.ones(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x))).mean((2, 3)) + self.offset


def program(
    path: Path, *, train: bool = False, batch: int | None = None, broken: bool = False
) -> Small:
    torch.manual_seed(1)
    module = Small().train(train)
    if broken:
        module.conv.weight.data[0, 0, 0, 0] = float("nan")
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    example = torch.zeros(batch or 2, 3, 8, 8)
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), path)
    return module


def test_exported_program(tmp_path: Path) -> None:
    module = program(tmp_path / "m.pt2")

    loaded = load_model(str(tmp_path / "m.pt2"))

    assert loaded.module is not None
    assert (loaded.input_size, loaded.fixed_batch, loaded.num_classes) == ((3, 8, 8), None, 4)
    assert loaded.parameters == 3 * 4 * 9 + 4 + 4 + 4
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.module(x), module(x), rtol=0, atol=0)


def test_exported_program_of_one_batch_size(tmp_path: Path) -> None:
    program(tmp_path / "m.pt2", batch=1)

    assert load_model(str(tmp_path / "m.pt2")).fixed_batch == 1


def test_exported_program_in_training_mode(tmp_path: Path) -> None:
    program(tmp_path / "m.pt2", train=True)

    with pytest.raises(ModelError, match=r"training mode.*model\.eval\(\)"):
        load_model(str(tmp_path / "m.pt2"))


def test_exported_program_with_nan(tmp_path: Path) -> None:
    program(tmp_path / "m.pt2", broken=True)

    with pytest.raises(ModelError, match=r"NaN.*conv\.weight"):
        load_model(str(tmp_path / "m.pt2"))


def changed(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    change(records)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, record in records.items():
            archive.writestr(name, record)


def key(records: dict[str, bytes], end: str) -> str:
    return next(name for name in records if name.endswith(end))


@pytest.mark.parametrize("place", ["sample_inputs", "weight", "constant", "legacy", "compiled"])
def test_exported_program_with_code_in_it(tmp_path: Path, place: str) -> None:
    program(tmp_path / "m.pt2")

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    buffer = io.BytesIO()
    torch.save(Evil(), buffer)

    def plant(records: dict[str, bytes]) -> None:
        if place == "sample_inputs":
            records[key(records, "sample_inputs/model.pt")] = buffer.getvalue()
        elif place == "weight":
            table = key(records, "model_weights_config.json")
            config = json.loads(records[table])
            config["config"]["conv.weight"].update(use_pickle=True, tensor_meta=None)
            name = config["config"]["conv.weight"]["path_name"]
            records[key(records, f"weights/{name}")] = buffer.getvalue()
            records[table] = json.dumps(config).encode()
        elif place == "constant":
            table = key(records, "model_constants_config.json")
            config = json.loads(records[table])
            entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
            config["config"]["offset"] = {**entry, "tensor_meta": None}
            records[table] = json.dumps(config).encode()
            folder = table.removesuffix("model_constants_config.json")
            records[f"{folder}opaque_obj_0"] = pickle.dumps(Evil())
        elif place == "legacy":
            folder = key(records, "model_weights_config.json").rpartition("/")[0]
            records[f"{folder}/model.pt"] = buffer.getvalue()
        else:
            root = next(iter(records)).partition("/")[0]
            records[f"{root}/data/aotinductor/model/model.so"] = b"\x7fELF"

    changed(tmp_path / "m.pt2", plant)

    with pytest.raises(ModelError):
        load_model(str(tmp_path / "m.pt2"))

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04", bytes(100)])
def test_file_that_is_no_program(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.pt2").write_bytes(content)

    with pytest.raises(ModelError, match=r"m\.pt2"):
        load_model(str(tmp_path / "m.pt2"))


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_truncated_program(tmp_path: Path, keep: float) -> None:
    program(tmp_path / "m.pt2")
    data = (tmp_path / "m.pt2").read_bytes()
    (tmp_path / "m.pt2").write_bytes(data[: int(len(data) * keep)])

    with pytest.raises(ModelError, match=r"m\.pt2"):
        load_model(str(tmp_path / "m.pt2"))
