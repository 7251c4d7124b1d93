"""``export --implicit-int8``: a float graph and a calibration cache that fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from edgecls.bundle import Bundle
from edgecls.bundle.manifest import Artefact
from edgecls.calibration.trt_cache import parse_cache
from edgecls.core.errors import BundleError, UsageError
from edgecls.core.files import sha256_bytes
from edgecls.core.progress import Quiet
from edgecls.runtimes import load
from edgecls.runtimes.engine_options import EngineOptions
from edgecls.runtimes.tensorrt_build import (
    exclusive,
    import_api,
    make_logger,
    tensorrt_rtx_available,
)
from edgecls.runtimes.tensorrt_int8 import under_version
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions

if TYPE_CHECKING:
    from ..conftest import Digits

GRAPH, CACHE = "model.implicit-int8.onnx", "model.implicit-int8.cache"


@pytest.fixture(scope="module")
def bundle(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("implicit")
    export(options(digits, out, keep_graphs=out / "graphs"), Quiet())
    return Bundle(out / "jetson")


def options(digits: Digits, out: Path, **changes: Any) -> ExportOptions:
    values: dict[str, Any] = {
        "source": "lenet5", "weights": digits.weights, "targets": ("jetson",), "out": out,
        "calib": digits.train, "calib_images": 40, "implicit_int8": True,
    }  # fmt: skip
    return ExportOptions(**{**values, **changes})


def graph_of(bundle: Bundle, name: str) -> onnx.GraphProto:
    return onnx.load_from_string(bundle.read(name)).graph


def implicit(bundle: Bundle) -> Artefact:
    (found,) = (a for a in bundle.manifest.artefacts if a.format == "onnx-calibrated")
    return found


def test_it_stands_beside_the_explicit_graph(bundle: Bundle) -> None:
    bundle.verify()
    found = implicit(bundle)
    explicit = bundle.manifest.artefacts[0]

    assert [a.path for a in bundle.manifest.artefacts] == [
        "model.int8.onnx", "model.fp16.onnx", GRAPH,
    ]  # fmt: skip
    assert (found.path, found.calibration_cache, found.precision) == (GRAPH, CACHE, "int8")
    assert found.input.dtype == "float32"
    assert not {node.op_type for node in graph_of(bundle, GRAPH).node} & {
        "QuantizeLinear", "DequantizeLinear", "Cast",
    }  # fmt: skip
    for sample in bundle.manifest.golden:
        assert sample.logits[GRAPH] == sample.logits[explicit.path]
        assert sample.tensors[GRAPH] == sample.tensors[explicit.path], "both take float32"
    assert load(bundle, allow_fallback=True).artefact.path == explicit.path


def test_the_cache_has_the_scales_of_the_explicit_graph(bundle: Bundle) -> None:
    scales = parse_cache(bundle.read(CACHE).decode())
    graph = graph_of(bundle, "model.int8.onnx")
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    # What a QuantizeLinear reads is a tensor of the float graph, or its cast to FP16.
    sources = {name: node for node in graph.node for name in node.output}
    quantized = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            name = node.input[0]
            while name not in scales and sources[name].op_type in {"Cast", "Identity"}:
                name = sources[name].input[0]
            quantized[name] = float(constants[node.input[1]])

    assert len(quantized) >= 4
    for name, scale in quantized.items():
        assert scales[name] == np.float32(scale), name


def test_every_name_of_the_cache_is_a_tensor_of_the_graph(bundle: Bundle) -> None:
    graph = graph_of(bundle, GRAPH)
    tensors = {name for node in graph.node for name in node.output} | {graph.input[0].name}
    scales = parse_cache(bundle.read(CACHE).decode())

    assert set(scales) <= tensors
    assert graph.input[0].name in scales
    # Each of those that a convolution or a product reads has its scale.
    for node in graph.node:
        if node.op_type in {"Conv", "Gemm", "MatMul"}:
            assert node.input[0] in scales


@pytest.mark.skipif(tensorrt_rtx_available() is None, reason="TensorRT-RTX is not installed")
def test_tensorrts_parser_keeps_the_names_of_the_cache(bundle: Bundle) -> None:
    trt = import_api("tensorrt-rtx")
    with exclusive():
        log = make_logger(trt)
        builder = trt.Builder(log)
        flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = builder.create_network(1 << int(flag))
        parser = trt.OnnxParser(network, log)
        assert parser.parse(bundle.read(GRAPH))
        names = {network.get_input(0).name}
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            names |= {layer.get_output(output).name for output in range(layer.num_outputs)}
        del layer, parser, network, builder
    scales = parse_cache(bundle.read(CACHE).decode())
    outputs = {value.name for value in graph_of(bundle, GRAPH).output}

    # The parser calls the logits "logits_7" or so as long as they are one tensor of many.
    assert {name for name in scales if name not in outputs} <= names


def test_the_header_becomes_the_readers(bundle: Bundle) -> None:
    data = bundle.read(CACHE)
    there = under_version(data, "10.3.0")

    assert there.startswith(b"TRT-100300-EntropyCalibration2\n")
    assert parse_cache(there.decode()) == parse_cache(data.decode())


def test_without_tensorrt_it_does_not_run(bundle: Bundle) -> None:
    engine = EngineOptions(implicit_int8=True)

    for backend in ("onnxruntime", "tensorrt-rtx"):
        with pytest.raises(UsageError, match="no implicit quantization"):
            load(bundle, backend=backend, engine=engine)


def test_what_is_shipped_otherwise_stays_the_same(
    bundle: Bundle, digits: Digits, tmp_path: Path
) -> None:
    export(options(digits, tmp_path, implicit_int8=False), Quiet())
    plain = Bundle(tmp_path / "jetson").manifest

    assert {name: plain.files[name] for name in plain.files} == {
        name: entry for name, entry in bundle.manifest.files.items() if name not in (GRAPH, CACHE)
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another precision": ({"precision": "fp16"}, "not for fp16"),
    "another target": ({"targets": ("raspberry-pi",)}, "--target jetson or desktop-gpu"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_is_not_for(digits: Digits, tmp_path: Path, name: str) -> None:
    changes, message = REFUSED[name]

    with pytest.raises(UsageError, match=message):
        export(options(digits, tmp_path, **changes), Quiet())

    assert not any(tmp_path.iterdir())


def test_a_quantized_graph_has_no_float_one(bundle: Bundle, digits: Digits, tmp_path: Path) -> None:
    explicit = bundle.path.parent / "graphs" / "qdq.fused.symmetric.onnx"

    with pytest.raises(UsageError, match="--implicit-int8 is for float models"):
        export(options(digits, tmp_path, source=str(explicit), weights=None, calib=None,
                       preprocess="mnist"), Quiet())  # fmt: skip


def test_a_manifest_without_the_cache_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    from edgecls.bundle.manifest import MANIFEST, MANIFEST_HASH

    folder = tmp_path / "copy"
    for name in bundle.manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bundle.read(name))
    text = bundle.unlisted()[MANIFEST].replace(b'"model.implicit-int8.cache"\n', b"null\n")
    (folder / MANIFEST).write_bytes(text)
    (folder / MANIFEST_HASH).write_text(f"{sha256_bytes(text)}  {MANIFEST}\n")

    with pytest.raises(BundleError, match="calibration cache"):
        Bundle(folder)
