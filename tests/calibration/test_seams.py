"""Factors moved from normalizations into what reads them: the function stays as it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import place_qdq
from edgecls.calibration.repair import equalized
from edgecls.calibration.repair.seams import find_seams
from edgecls.core.torchvision_ops import import_timm
from edgecls.export.simplify import simplify
from edgecls.export.torch_onnx import TorchToOnnx
from edgecls.targets import TARGETS
from edgecls.workflows.graph import run_onnx

# Queries, keys and values side by side; a normalization that a sum reads too; one with a factor, a
# table of places and a mean behind it.
NET = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch,16,8] input) => (float[batch,5] logits)
{
    n1 = LayerNormalization (input, g1, b1)
    queries = MatMul (n1, wq)
    rows = Reshape (n1, as_rows)
    flat = Gemm <transB=1> (rows, wk, bk)
    keys = Reshape (flat, as_tokens)
    turned = Transpose <perm=[0,2,1]> (n1)
    back = Transpose <perm=[0,2,1]> (turned)
    values = MatMul (back, wv)
    across = Transpose <perm=[0,2,1]> (keys)
    scores = MatMul (queries, across)
    shares = Softmax (scores)
    mixed = MatMul (shares, values)
    sum = Add (input, mixed)
    n2 = LayerNormalization (sum, g2, b2)
    dense = MatMul (n2, w2)
    post = Add (n2, dense)
    n3 = LayerNormalization (post, g3, b3)
    scaled = Mul (c3, n3)
    placed = Add (scaled, d3)
    mean = ReduceMean <keepdims=0> (placed, axes)
    logits = Gemm (mean, w4, b4)
}
"""
SHAPES = {
    "g1": (8,), "b1": (8,), "wq": (8, 8), "wk": (8, 8), "bk": (8,), "wv": (8, 8), "g2": (8,),
    "b2": (8,), "w2": (8, 8), "g3": (8,), "b3": (8,), "c3": (8,), "d3": (1, 16, 8), "w4": (8, 5),
    "b4": (5,),
}  # fmt: skip
FACTORS = 4.0 ** np.array([-3, 2, -1, 3, 0, 1, -2, 0])  # their geometric mean is one
READERS = {"wq": 0, "wk": 1, "wv": 0}  # along what they read


def built(text: str, arrays: dict[str, NDArray[np.generic]]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def constants() -> dict[str, NDArray[np.generic]]:
    generator = np.random.default_rng(0)
    found: dict[str, NDArray[np.generic]] = {
        name: generator.normal(0, 0.5, shape).astype(np.float32) for name, shape in SHAPES.items()
    }
    return found | {
        "as_rows": np.array([-1, 8], np.int64), "as_tokens": np.array([-1, 16, 8], np.int64),
        "axes": np.array([1], np.int64),
    }  # fmt: skip


def planted() -> dict[str, NDArray[np.generic]]:
    """The same with the first normalization's channels scaled apart: it computes the same."""
    arrays = constants()
    for name in ("g1", "b1"):
        arrays[name] = (arrays[name] * FACTORS).astype(np.float32)
    for name, axis in READERS.items():
        along = FACTORS[:, None] if axis == 0 else FACTORS
        arrays[name] = (arrays[name] / along).astype(np.float32)
    return arrays


def images(size: tuple[int, ...] = (16, 8), count: int = 6) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(count, *size)).astype(np.float32)


def mended(model: onnx.ModelProto) -> tuple[dict[str, NDArray[np.generic]], tuple[str, ...]]:
    made, names = equalized(model, images()[:, None])
    return {item.name: numpy_helper.to_array(item) for item in made.graph.initializer}, names


def names_of(model: onnx.ModelProto) -> list[str]:
    return [seam.name for seam in find_seams(ir.from_proto(model).graph)]


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, data: NDArray[np.float32]) -> None:
    """To the rounding of float32, beside how far images' answers are from one another."""
    expected, found = run_onnx(before, data), run_onnx(after, data)
    assert np.abs(found - expected).max() <= 1e-4 * np.ptp(expected, axis=0).max()


def test_the_function_is_unchanged_and_a_norm_that_a_sum_reads_is_left() -> None:
    model = built(NET, planted())
    made, names = equalized(model, images()[:, None])

    assert names == ("n1", "n3")
    assert_same(model, made, images())
    before = {item.name: item for item in model.graph.initializer}
    changed = {item.name for item in made.graph.initializer if item != before[item.name]}
    assert changed == {"g1", "b1", "wq", "wk", "wv", "g3", "b3", "d3", "w4"}


def test_the_factors_are_smoothquants() -> None:
    """Those of equation 4 with an alpha of 0.5, up to their mean."""
    arrays = constants()
    after, _ = mended(built(NET, arrays))

    tokens = images().reshape(-1, 8).astype(np.float64)
    normal = (tokens - tokens.mean(1, keepdims=True)) / np.sqrt(tokens.var(1, keepdims=True) + 1e-5)
    largest = np.abs(normal * arrays["g1"] + arrays["b1"]).max(0)
    weights = [np.abs(arrays[name]).max(1 - axis) for name, axis in READERS.items()]
    factors = np.sqrt(largest / np.max(weights, 0))
    factors /= np.exp(np.log(factors).mean())
    assert np.allclose(after["g1"], arrays["g1"] / factors, rtol=1e-4)
    assert np.allclose(after["wk"], arrays["wk"] * factors, rtol=1e-4)


def test_what_was_planted_is_undone() -> None:
    """Whatever factors a net was scaled by, it ends as the same net."""
    plain, _ = mended(built(NET, constants()))
    found, _ = mended(built(NET, planted()))

    for name, array in plain.items():
        assert np.allclose(found[name], array, rtol=1e-4, atol=1e-6), name


def test_a_planted_spread_no_longer_costs_accuracy() -> None:
    scheme, data = TARGETS["raspberry-pi"].scheme, images()

    def noise(model: onnx.ModelProto) -> float:
        items = [(f"{place:02x}", image[None]) for place, image in enumerate(data)]
        table = collect_ranges(model, items, method="minmax", seed=0)
        found = run_onnx(place_qdq(model, table, scheme).model, data)
        return float(((found - run_onnx(model, data)) ** 2).sum())

    plain, spread = built(NET, constants()), built(NET, planted())
    assert noise(spread) > 30 * noise(plain)
    assert noise(equalized(spread, data[:, None])[0]) < noise(spread) / 10


def output(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.helper.make_tensor_value_info("n1", 1, ["batch", 16, 8]))


def bent(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Sigmoid", ["n1"], ["gate"]))
    model.graph.node.append(onnx.helper.make_node("ReduceMax", ["gate"], ["most"], keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Add", ["before", "most"], ["logits"]))


def shared_scale(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[1] = "g2"


def shared_weights(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[1] = "w2"


@pytest.mark.parametrize("change", [output, bent, shared_scale, shared_weights])
def test_without_all_readers_a_norm_is_left(change: Callable[[onnx.ModelProto], None]) -> None:
    model = built(NET, constants())
    change(model)
    onnx.checker.check_model(model, full_check=True)

    assert names_of(onnx.shape_inference.infer_shapes(model, strict_mode=True)) == ["n3"]


@pytest.mark.parametrize(
    ("move", "width", "found"),
    [
        ("Transpose <perm=[1,0,2]> (n1)", 8, ["n1"]),
        ("Transpose <perm=[0,2,1]> (n1)", 8, []),
        ("Reshape <allowzero=0> (n1, whole)", 8, ["n1"]),
        ("Reshape <allowzero=0> (n1, parted)", 4, []),
        ("Slice (n1, zero, one, middle)", 8, ["n1"]),
        ("Slice (n1, zero, one, last)", 1, []),
        ("ReduceMean (n1, middle)", 8, ["n1"]),
        ("ReduceMean (n1, last)", 1, []),
    ],
)
def test_other_axes_are_not_mistaken_for_channels(move: str, width: int, found: list[str]) -> None:
    """All sizes are eight or fit: they alone do not tell what is which."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[8,8,8] input) => (float[a,b,3] logits)
    {{
        n1 = LayerNormalization (input, g1, b1)
        moved = {move}
        logits = MatMul (moved, w)
    }}
    """
    arrays = {name: constants()[name] for name in ("g1", "b1")} | {
        "w": np.ones((width, 3), np.float32), "whole": np.array([4, 16, 8], np.int64),
        "parted": np.array([8, 16, 4], np.int64), "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64), "middle": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
    }  # fmt: skip

    assert names_of(built(text, arrays)) == found


def test_a_norm_over_tokens_and_channels_is_left() -> None:
    """Its scale has a row for each token, as many as there are channels."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[2,8,8] input) => (float[2,8,3] logits)
    {
        n1 = LayerNormalization <axis=1> (input, g, b)
        logits = MatMul (n1, w)
    }
    """
    arrays: dict[str, NDArray[np.generic]] = {
        "g": np.ones((8, 8), np.float32), "b": np.ones((8, 8), np.float32),
        "w": np.ones((8, 3), np.float32),
    }  # fmt: skip

    assert names_of(built(text, arrays)) == []


def test_an_affine_of_its_own_behind_a_normalization() -> None:
    """What is left of a group normalization; the convolutions read channels and groups of them."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[batch,4,6,6] input) => (float[batch,6,6,6] logits)
    {
        groups = Reshape (input, as_groups)
        normal = InstanceNormalization (groups, ones, zeros)
        same = Reshape (normal, as_images)
        scaled = Mul (same, scale)
        moved = Add (scaled, shift)
        one = Conv <kernel_shape=[1,1]> (moved, w1)
        two = Conv <kernel_shape=[3,3], pads=[1,1,1,1], group=4> (moved, w2)
        both = Concat <axis=1> (one, two)
        logits = Sigmoid (both)
    }
    """
    generator = np.random.default_rng(1)
    shapes = {"scale": (4, 1, 1), "shift": (1, 4, 1, 1), "w1": (2, 4, 1, 1), "w2": (4, 1, 3, 3)}
    arrays: dict[str, NDArray[np.generic]] = {
        name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()
    }
    arrays["scale"] *= np.array([1, 100, 10, 0.1], np.float32).reshape(4, 1, 1)
    arrays |= {"ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32),
               "as_groups": np.array([-1, 2, 72], np.int64),
               "as_images": np.array([-1, 4, 6, 6], np.int64)}  # fmt: skip
    model, data = built(text, arrays), images((4, 6, 6))

    made, names = equalized(model, data[:, None])

    assert names == ("scaled",)
    expected, found = run_onnx(model, data), run_onnx(made, data)
    assert np.abs(found - expected).max() <= 1e-5
    after = {item.name: numpy_helper.to_array(item) for item in made.graph.initializer}
    factors = (arrays["scale"] / after["scale"]).reshape(-1)
    assert factors.max() / factors.min() > 5
    assert np.allclose(after["w2"].reshape(4, -1).T, arrays["w2"].reshape(4, -1).T * factors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "norms", "left"),
    [
        ("vit_tiny_patch16_224", {"img_size": 96, "depth": 2}, 5, 0),
        ("deit_tiny_distilled_patch16_224", {"img_size": 96, "depth": 2}, 5, 0),
        ("convnext_atto", {}, 17, 1),  # a residual reads the stem's
    ],
)
def test_real_nets_compute_the_same(
    name: str, options: dict[str, int], norms: int, left: int
) -> None:
    torch.manual_seed(0)
    module = import_timm().create_model(name, pretrained=False, **options).eval()
    with torch.no_grad():
        for part in module.modules():
            if "LayerNorm" in type(part).__name__:
                part.weight.copy_(8.0 ** (2 * torch.rand_like(part.weight) - 1))
                part.bias.normal_(0, 0.5)
    model = simplify(TorchToOnnx(input_size=(3, 96, 96))(module))
    data = images((3, 96, 96), 3)

    made, names = equalized(model, data[:, None])

    assert sum(node.op_type == "LayerNormalization" for node in model.graph.node) == norms
    assert len(names) == norms - left
    assert_same(model, made, data)
    before = {item.name: item for item in model.graph.initializer}
    changed = [item.name for item in made.graph.initializer if item != before[item.name]]
    assert len(changed) >= 3 * len(names)
