"""Small graphs whose quantization breaks in a place that is known, and images for them."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from edgecls.calibration.collect import collect_ranges
from edgecls.core.preprocess import PRESETS
from edgecls.core.ranges import RangeTable
from edgecls.workflows.graph import run_onnx
from edgecls.workflows.precision.judging import Judging

LAYERS = ("c1", "c2", "c3", "logits")
PLANTED = "c2"

CHAIN = """
<ir_version: 10, opset_import: ["" : 20]>
chain (float[batch,3,8,8] input) => (float[batch,5] logits)
{
    c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (input, w1, b1)
    r1 = Relu (c1)
    c2 = Conv <kernel_shape=[1,1]> (r1, w2, b2)
    r2 = Relu (c2)
    c3 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (r2, w3, b3)
    r3 = Relu (c3)
    mean = ReduceMean <keepdims=0> (r3, axes)
    logits = Gemm <transB=1> (mean, w4, b4)
}
"""


def chain(*, planted: bool) -> onnx.ModelProto:
    """Three convolutions and a product; with a fault, c2 has a channel of a thousand times the
    others' values, which c3 gives no weight: the int8 steps of c2's output are then too wide.
    """
    generator = np.random.default_rng(0)
    shapes = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 6, 1, 1), "b2": (6,),
              "w3": (8, 6, 3, 3), "b3": (8,), "w4": (5, 8), "b4": (5,)}  # fmt: skip
    arrays = {
        name: generator.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()
    }
    if planted:
        arrays["w2"][0] *= 1000
        arrays["w3"][:, 0] = 0
    axes = np.array([2, 3], np.int64)
    # Centred, so that no class is every image's answer.
    tensors = PRESETS["cifar10"].normalize(pixels(100, 3))
    arrays["b4"] -= run_onnx(build(CHAIN, axes=axes, **arrays), tensors).mean(0)
    return build(CHAIN, axes=axes, **arrays)


def build(text: str, **constants: NDArray[np.generic]) -> onnx.ModelProto:
    """Return a graph from its text with its constants."""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def pixels(count: int, seed: int, size: int = 8) -> NDArray[np.uint8]:
    """Return seeded images of a colour each with noise on it, shape (count, size, size, 3)."""
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 200, (count, 1, 1, 3))
    noise = generator.integers(0, 56, (count, size, size, 3))
    return (colours + noise).astype(np.uint8)


def table_of(model: onnx.ModelProto, count: int = 20) -> RangeTable:
    """Return min-max ranges on seeded images."""
    tensors = PRESETS["cifar10"].normalize(pixels(count, 1))
    items = [(f"{place:02x}", tensors[place : place + 1]) for place in range(count)]
    return collect_ranges(model, items, method="minmax", seed=0)


def judging_of(model: onnx.ModelProto, count: int = 60) -> Judging:
    """Return images that judge; the float graph's answers are the right ones."""
    found = pixels(count, 2)
    expected = run_onnx(model, PRESETS["cifar10"].normalize(found))
    return Judging(
        names=tuple(f"{place}.png" for place in range(count)),
        hashes=tuple(f"{place:064x}" for place in range(count)),
        pixels=found,
        preprocess=PRESETS["cifar10"],
        expected=expected,
        truth=expected.argmax(1),
        graded=True,
        overlap=0,
        unreadable=0,
    )
