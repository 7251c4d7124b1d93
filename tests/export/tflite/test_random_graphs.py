"""Random chains of operators: whatever is composed, the file computes what the graph says.

Every shape, window, group count and broadcast is drawn; hypothesis shrinks what fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.shape_inference import infer_shapes

from edgecls.export.tflite import lower

CHAIN_SETTINGS: Final = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


class Chain:
    """Builds a graph step by step; each method adds one step to an image (1, C, H, W).

    ``positive`` says that the value at hand has nothing below 0.1, and may divide.
    """

    def __init__(self, draw):
        self.draw, self.nodes, self.constants = draw, [], {}
        self.rng = np.random.default_rng(self.whole(0, 2**32 - 1))
        self.value = "x"
        self.shape = self.start = (1, self.whole(1, 6), self.whole(3, 13), self.whole(3, 13))

    def __repr__(self):
        nodes = "; ".join(
            f"{n.op_type}({', '.join(n.input)}) "
            f"{ {a.name: helper.get_attribute_value(a) for a in n.attribute} }"
            for n in self.nodes
        )
        shapes = {
            k: v.tolist() if v.dtype == np.int64 else v.shape for k, v in self.constants.items()
        }
        return f"{self.start}: {nodes} with {shapes}"

    def whole(self, low, high):
        return self.draw(st.integers(low, high))

    def pair(self, low, high):
        return [self.whole(low, high), self.whole(low, high)]

    def one_of(self, *choices):
        return self.draw(st.sampled_from(choices))

    def node(self, op, inputs, **attributes):
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def ints(self, *numbers):
        return self.constant(np.asarray(numbers, np.int64))

    def weights(self, *shape):
        return self.constant(self.rng.normal(0, 0.4, shape).astype(np.float32))

    def conv(self):
        """Any groups (depthwise too) and multiplier, stride and dilation at once, uneven pads."""
        _, channels, *size = self.shape
        groups = self.one_of(*(n for n in range(1, channels + 1) if channels % n == 0))
        out = groups * self.whole(1, max(1, 8 // groups))
        kernel, strides, dilations = self.pair(1, 3), self.pair(1, 3), self.pair(1, 3)
        pads = self.pair(0, 3) + self.pair(0, 3)
        for axis in (0, 1):
            room = size[axis] + pads[axis] + pads[axis + 2]
            if (kernel[axis] - 1) * dilations[axis] + 1 > room:
                kernel[axis] = 1
        inputs = [self.value, self.weights(out, channels // groups, *kernel)]
        if self.draw(st.booleans()):
            inputs.append(self.weights(out))
        self.value = self.node(
            "Conv", inputs, group=groups, strides=strides, dilations=dilations, pads=pads
        )
        self.shape = (1, out, *(
            (size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
            for i in (0, 1)
        ))  # fmt: skip

    def activation(self):
        op = self.one_of("Relu", "Sigmoid", "Tanh", "Clip", "LeakyRelu", "HardSwish")
        bounds = [self.constant(np.float32(n)) for n in (0, 6)] if op == "Clip" else []
        self.value = self.node(op, [self.value, *bounds])

    def pool(self):
        """Ceil mode, what counts, uneven pads; never a window without a pixel of the image."""
        _, channels, *size = self.shape
        kernel, strides = self.pair(1, 4), self.pair(1, 3)
        kernel = [min(pair) for pair in zip(kernel, size, strict=True)]
        pads = [self.whole(0, k - 1) for k in (*kernel, *kernel)]
        ceil, op = self.whole(0, 1), self.one_of("MaxPool", "AveragePool")
        sizes = []
        for axis in (0, 1):
            over = size[axis] + pads[axis] + pads[axis + 2] - kernel[axis]
            steps = -(-over // strides[axis]) if ceil else over // strides[axis]
            if steps * strides[axis] >= size[axis] + pads[axis]:
                return
            sizes.append(steps + 1)
        attributes = {"count_include_pad": self.whole(0, 1)} if op == "AveragePool" else {}
        self.value = self.node(
            op, [self.value], kernel_shape=kernel, strides=strides, pads=pads, ceil_mode=ceil,
            **attributes,
        )  # fmt: skip
        self.shape = (1, channels, *sizes)

    def fixed_operand(self):
        """A constant: any axes of the image kept, others 1, leading ones left out."""
        keep = self.draw(st.lists(st.booleans(), min_size=4, max_size=4))
        full = [size if kept else 1 for size, kept in zip(self.shape, keep, strict=True)]
        shape = full[self.whole(0, 4) :]
        other = self.constant(self.rng.uniform(0.5, 2, shape).astype(np.float32))
        self.binary(other, "Add", "Sub", "Mul", "Div", "Max", "Min")

    def computed_operand(self):
        """A value of the graph's own: the same shape, or means over any axes, of any rank."""
        other = self.node(self.one_of("Sigmoid", "Relu"), [self.value])
        axes = self.draw(st.sets(st.integers(1, 3)))
        if axes:
            other = self.node("ReduceMean", [other, self.ints(*sorted(axes))], keepdims=1)
        lead = self.whole(0, 1 + (1 in axes) * (1 + (2 in axes)))
        if lead:
            other = self.node("Squeeze", [other, self.ints(*range(lead))])
        self.binary(other, "Add", "Sub", "Mul", "Max", "Min")

    def binary(self, other, *operators):
        op = self.one_of(*operators)
        inputs = [self.value, other]
        if op != "Div" and self.draw(st.booleans()):
            inputs.reverse()
        self.value = self.node(op, inputs)

    def crop(self):
        """A part of every axis, with steps."""
        starts = [self.whole(0, size - 1) for size in self.shape[1:]]
        ends = [
            self.whole(first + 1, size) for first, size in zip(starts, self.shape[1:], strict=True)
        ]
        by = [self.whole(1, 2) for _ in starts]
        self.value = self.node(
            "Slice",
            [self.value, *(self.ints(*n) for n in (starts, ends, (1, 2, 3), by))],
        )
        self.shape = (
            1, *(-(-(end - first) // n) for first, end, n in zip(starts, ends, by, strict=True)),
        )  # fmt: skip

    def pad(self):
        pads = [0, self.whole(0, 1), *self.pair(0, 2), 0, self.whole(0, 1), *self.pair(0, 2)]
        self.value = self.node("Pad", [self.value, self.ints(*pads)])
        self.shape = tuple(s + pads[i] + pads[i + 4] for i, s in enumerate(self.shape))

    def concat(self):
        axis = self.whole(1, 3)
        other = self.node("Relu", [self.value])
        self.value = self.node("Concat", [self.value, other], axis=axis)
        self.shape = tuple(s * (1 + (i == axis)) for i, s in enumerate(self.shape))

    def there_and_back(self):
        _, channels, height, width = self.shape
        flat = self.node("Reshape", [self.value, self.ints(1, channels, height * width)])
        turned = self.node("Transpose", [flat], perm=[0, 2, 1])
        scaled = self.node("Mul", [turned, self.weights(channels)])
        back = self.node("Transpose", [scaled], perm=[0, 2, 1])
        self.value = self.node("Reshape", [back, self.ints(1, channels, height, width)])

    def channels_last(self):
        _, channels, height, width = self.shape
        out = self.whole(1, 5)
        turned = self.node("Transpose", [self.value], perm=[0, 2, 3, 1])
        done = self.node("MatMul", [turned, self.weights(channels, out)])
        self.value = self.node("Transpose", [done], perm=[0, 3, 1, 2])
        self.shape = (1, out, height, width)

    def finish(self):
        flat = self.node("Flatten", [self.value])
        weights = self.weights(6, int(np.prod(self.shape[1:])))
        self.nodes.append(helper.make_node("Gemm", [flat, weights], ["y"], transB=1))


STEPS: Final[tuple[Callable[[Chain], None], ...]] = (
    Chain.conv, Chain.activation, Chain.pool, Chain.fixed_operand, Chain.computed_operand,
    Chain.crop, Chain.pad, Chain.concat, Chain.there_and_back, Chain.channels_last,
)  # fmt: skip


@st.composite
def chains(draw):
    """Up to six steps, none of which makes more than a few thousand numbers."""
    chain = Chain(draw)
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6)):
        if np.prod(chain.shape) <= 2000:
            step(chain)
    chain.finish()
    return chain


def graph(lab, chain):
    return lab.graph(chain.nodes, chain.start, chain.constants)


@settings(max_examples=60, **CHAIN_SETTINGS)
@given(chains())
def test_random_chain(lab, chain):
    model = graph(lab, chain)
    transposes = lower(model).transposes

    lab.float_check(model, limit=5e-5, transposes=transposes)
    # Where the graph turns nothing, the file doesn't either.
    assert transposes <= sum(node.op_type == "Transpose" for node in chain.nodes)


@settings(max_examples=60, **CHAIN_SETTINGS)
@given(chains())
def test_random_chain_in_8_bits(lab, compare_layers, chain):
    """One step, in every value of the graph.

    Honest kernels may differ by a step, and a step grows over layers as the weights have it: a
    bound on the output alone is either loose or wrong. So each operator is fed the very codes that
    LiteRT's was: whatever the depth, what it makes is one rounding away, and where all are, so is
    the graph.
    """
    model = infer_shapes(lab.quantize(graph(lab, chain)))

    layers = compare_layers(model, lower(model), lab.data(model)[:1], moving=True)

    assert "Gemm" in {layer.operator for layer in layers}
    assert {layer.name: int(layer.steps.max()) for layer in layers if layer.steps.max() > 1} == {}


@settings(max_examples=25, **CHAIN_SETTINGS)
@given(chains())
def test_random_chain_in_16_bits(lab, compare_layers, chain):
    """Three steps: what LiteRT's kernels for 16 bits are right to (``versions.py``)."""
    model = infer_shapes(lab.quantize(graph(lab, chain), bits=16))

    lowered = lower(model)

    # A 16-bit addition is refused where an operand's steps are far coarser than the sum's; the
    # others have no kernel of 16 bits.
    more = {*lowered.left_float} - {*lower(lab.quantize(graph(lab, chain))).left_float}
    assert {name.split("_")[0] for name in more} <= {"Add", "Sub", "HardSwish", "Max", "Min"}
    layers = compare_layers(model, lowered, lab.data(model)[:1], moving=True)
    assert {layer.name: int(layer.steps.max()) for layer in layers if layer.steps.max() > 3} == {}
