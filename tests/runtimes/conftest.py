"""The smallest real classifier, in every format, with a numpy oracle.

conv 3x3 stride 2 (valid) + ReLU -> global average -> fully connected, 3x12x12 -> 5 classes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgecls.bundle import Manifest, write_bundle
from edgecls.bundle.manifest import Artefact, GoldenSample, ModelInfo
from edgecls.core.preprocess import Preprocess
from edgecls.core.values import TensorSpec
from edgecls.runtimes.preprocess import pixels_to_png, to_pixels
from edgecls.runtimes.steps import StepHashes, array_sha256

SIDE = 12
CLASSES = 5
CHANNELS = 4
PREPROCESS = Preprocess(resize=14, crop=SIDE, interpolation="bilinear")

Array = NDArray[Any]


@dataclass(frozen=True)
class Weights:
    """Random weights: kernel (O, I, 3, 3), dense (classes, O)."""

    kernel: Array
    bias: Array
    dense: Array
    offset: Array

    def logits(self, tensor: Array) -> Array:
        """Return the classifier's answer in float64 for (N, 3, H, W)."""
        windows = np.lib.stride_tricks.sliding_window_view(
            tensor.astype(np.float64), (3, 3), axis=(2, 3)
        )[:, :, ::2, ::2]
        maps = np.einsum("nihwkl,oikl->nohw", windows, self.kernel.astype(np.float64))
        maps = np.maximum(maps + self.bias[:, None, None], 0)
        return np.asarray(maps.mean(axis=(2, 3)) @ self.dense.T.astype(np.float64) + self.offset)


@pytest.fixture(scope="session")
def weights() -> Weights:
    random = np.random.default_rng(7)
    return Weights(
        kernel=random.normal(0, 0.3, (CHANNELS, 3, 3, 3)).astype(np.float32),
        bias=random.normal(0, 0.3, CHANNELS).astype(np.float32),
        dense=random.normal(0, 1, (CLASSES, CHANNELS)).astype(np.float32),
        offset=random.normal(0, 1, CLASSES).astype(np.float32),
    )


@pytest.fixture(scope="session")
def pixels() -> Array:
    """Six random images as a model takes them: (6, 12, 12, 3) uint8."""
    return np.random.default_rng(3).integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def tflite_float(weights: Weights) -> bytes:
    return make_tflite(weights, quantized=False)


@pytest.fixture(scope="session")
def tflite_int8(weights: Weights) -> bytes:
    return make_tflite(weights, quantized=True)


# The ranges of the int8 file: normalised pixels, activations after ReLU, their mean, logits.
SCALES = {"input": (0.02, -10), "maps": (0.05, -128), "mean": (0.03, -128), "logits": (0.08, 3)}


def make_tflite(weights: Weights, *, quantized: bool) -> bytes:
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    kind = schema.TensorType.INT8 if quantized else schema.TensorType.FLOAT32

    def tensor(name: str, shape: tuple[int, ...], data: Array | None = None, **quant: Any) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name, list(shape), 0
        made.type = quant.pop("type", kind)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            made.buffer = len(model.buffers)
            model.buffers.append(buffer)
        if quantized and quant:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.atleast_1d(quant["scale"]).astype(np.float32)
            made.quantization.zeroPoint = np.atleast_1d(quant["zero"]).astype(np.int64)
            made.quantization.quantizedDimension = 0
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def activation(name: str, shape: tuple[int, ...]) -> int:
        scale, zero = SCALES[name]
        return tensor(name, shape, scale=scale, zero=zero)

    def weight(name: str, values: Array, bias: Array, source: str) -> tuple[int, int]:
        if not quantized:
            return tensor(name, values.shape, values), tensor(f"{name}_bias", bias.shape, bias)
        largest = np.abs(values.reshape(len(values), -1)).max(axis=1)
        scale = (largest / 127).astype(np.float32)
        codes = np.rint(values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        steps = scale * np.float32(SCALES[source][0])
        zero = np.zeros(len(scale))
        return tensor(name, values.shape, codes, scale=scale, zero=zero), tensor(
            f"{name}_bias",
            bias.shape,
            np.rint(bias / steps).astype(np.int32),
            type=schema.TensorType.INT32,
            scale=steps,
            zero=zero,
        )

    def operator(
        code: int, version: int, kind: int, options: Any, inputs: list[int], output: int
    ) -> None:
        made = schema.OperatorCodeT()
        made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), version
        model.operatorCodes.append(made)
        node = schema.OperatorT()
        node.opcodeIndex = len(model.operatorCodes) - 1
        node.inputs, node.outputs = inputs, [output]
        node.builtinOptionsType, node.builtinOptions = kind, options
        graph.operators.append(node)

    side = (SIDE - 3) // 2 + 1
    source = activation("input", (1, SIDE, SIDE, 3))
    maps = activation("maps", (1, side, side, CHANNELS))
    mean = activation("mean", (1, CHANNELS))
    logits = activation("logits", (1, CLASSES))
    kernel, bias = weight(
        "kernel", weights.kernel.transpose(0, 2, 3, 1).copy(), weights.bias, "input"
    )
    dense, offset = weight("dense", weights.dense, weights.offset, "mean")
    axes = tensor("axes", (2,), np.array([1, 2], np.int32), type=schema.TensorType.INT32)

    convolution = schema.Conv2DOptionsT()
    convolution.padding = schema.Padding.VALID
    convolution.strideW = convolution.strideH = 2
    convolution.fusedActivationFunction = schema.ActivationFunctionType.RELU
    builtin, kinds = schema.BuiltinOperator, schema.BuiltinOptions
    operator(builtin.CONV_2D, 3, kinds.Conv2DOptions, convolution, [source, kernel, bias], maps)
    operator(builtin.MEAN, 2, kinds.ReducerOptions, schema.ReducerOptionsT(), [maps, axes], mean)
    operator(
        builtin.FULLY_CONNECTED,
        4,
        kinds.FullyConnectedOptions,
        schema.FullyConnectedOptionsT(),
        [mean, dense, offset],
        logits,
    )
    graph.inputs, graph.outputs = [source], [logits]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="session")
def onnx_float(weights: Weights) -> bytes:
    return make_onnx(weights)


def make_onnx(weights: Weights, *, batch: int | str = "batch", dtype: Any = np.float32) -> bytes:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = {
        "kernel": weights.kernel,
        "bias": weights.bias,
        "dense": weights.dense,
        "offset": weights.offset,
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "bias"], ["maps"], "conv", strides=[2, 2]),
        helper.make_node("Relu", ["maps"], ["positive"], "relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["mean"], "pool"),
        helper.make_node("Flatten", ["mean"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "dense", "offset"], ["logits"], "gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kind, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", kind, [batch, CLASSES])],
        [onnx.numpy_helper.from_array(v.astype(dtype), name) for name, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def photo(seed: int = 0, size: tuple[int, int] = (20, 30)) -> Array:
    """A smooth random image (height, width, 3), uint8."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def encoded(image: Array, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, file_format, **options)
    return file.getvalue()


@dataclass(frozen=True)
class Made:
    """An artefact for ``make_bundle``."""

    path: str
    format: Any
    precision: Any
    data: bytes
    beside: bytes | None = None

    @property
    def calibration_cache(self) -> str | None:
        return None if self.beside is None else f"{self.path}.cache"

    def fed(self, pixels: Array) -> Array:
        """What the file is fed for pixels (H, W, 3), by the formula, without tables."""
        values = (pixels / PREPROCESS.scale - PREPROCESS.mean) / PREPROCESS.std
        values = values.astype(np.float32)
        if self.format != "tflite":
            return values.transpose(2, 0, 1)
        if self.precision != "int8":
            return values
        scale, zero = SCALES["input"]
        return np.clip(np.rint(values / np.float32(scale)) + zero, -128, 127).astype(np.int8)


MakeBundle = Callable[..., Path]


@pytest.fixture
def make_bundle(tmp_path: Path, weights: Weights) -> MakeBundle:
    """Write a bundle of the tiny classifier; its golden logits are the oracle's."""

    def make(
        *artefacts: Made,
        target: str = "raspberry-pi",
        labels: tuple[str, ...] | None = ("ant", "bee", "cat", "dog", "eel"),
        golden: int = 2,
        images: Sequence[tuple[str, bytes]] | None = None,
        preprocess: Preprocess = PREPROCESS,
        **changes: Any,
    ) -> Path:
        files = {made.path: made.data for made in artefacts}
        files |= {made.calibration_cache: made.beside for made in artefacts if made.beside}
        samples = []
        if images is None:
            images = [(".png", encoded(photo(index))) for index in range(golden)]
        for index, (suffix, image) in enumerate(images):
            watch = StepHashes()
            pixels = to_pixels(image, preprocess, watch=watch)
            logits = weights.logits(preprocess.normalize(pixels[None]))[0].astype("<f4")
            names = [f"golden/{index}{ending}" for ending in (suffix, ".pixels.png", ".f32")]
            files |= dict(zip(names, (image, pixels_to_png(pixels), logits.tobytes()), strict=True))
            held = {made.path: names[2] for made in artefacts}
            samples.append(
                GoldenSample(
                    image=names[0],
                    pixels=names[1],
                    logits=held,
                    steps=watch.hashes,
                    tensors={made.path: array_sha256(made.fed(pixels)) for made in artefacts},
                )
            )
        manifest = Manifest(
            target=target,
            precision=artefacts[0].precision,
            model=ModelInfo(source="test", weights_sha256=None, parameters=1, graph_sha256=""),
            preprocess=preprocess,
            labels=labels,
            num_classes=CLASSES,
            artefacts=tuple(
                Artefact(
                    path=made.path,
                    format=made.format,
                    precision=made.precision,
                    input=TensorSpec(name="image", shape=(1, SIDE, SIDE, 3)),
                    output=TensorSpec(name="logits", shape=(1, CLASSES)),
                    calibration_cache=made.calibration_cache,
                )
                for made in artefacts
            ),
            steps=(),
            golden=tuple(samples),
            golden_source="synthetic",
            tools={"pillow": "1.2.3"},
            files={},
        )
        path = tmp_path / "bundle"
        write_bundle(path, msgspec.structs.replace(manifest, **changes), files)
        return path

    return make


@pytest.fixture
def pi_bundle(make_bundle: MakeBundle, tflite_float: bytes, tflite_int8: bytes) -> Path:
    return make_bundle(
        Made("model.int8.tflite", "tflite", "int8", tflite_int8),
        Made("model.fp32.tflite", "tflite", "fp32", tflite_float),
    )


@pytest.fixture
def jetson_bundle(make_bundle: MakeBundle, onnx_float: bytes) -> Path:
    return make_bundle(Made("model.fp32.onnx", "onnx", "fp32", onnx_float), target="jetson")
