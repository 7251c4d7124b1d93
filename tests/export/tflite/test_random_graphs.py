"""Random chains of operators: whatever is composed, the file computes what the graph says."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgecls.export.tflite import lower

STEPS = (
    "conv", "depthwise", "relu", "sigmoid", "max_pool", "average_pool", "skip", "gate", "crop",
    "every_second", "pad", "concat", "there_and_back", "channels_last", "mean",
)  # fmt: skip


class Chain:
    """Builds a graph step by step from an image of 4 channels."""

    def __init__(self, rng):
        self.rng, self.nodes, self.constants = rng, [], {}
        self.value, self.shape = "x", (1, 4, 12, 12)

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

    def add(self, step):
        before, value = self.shape, self.value
        _, channels, height, width = before
        if step == "conv":
            pads = [int(p) for p in self.rng.integers(0, 2, 4)]
            stride = int(self.rng.integers(1, 3))
            if min(height, width) < 4:
                return
            inputs = [value, self.weights(5, channels, 3, 3), self.weights(5)]
            self.value = self.node("Conv", inputs, pads=pads, strides=[stride, stride])
            sizes = [
                (size + pads[i] + pads[i + 2] - 3) // stride + 1
                for i, size in enumerate((height, width))
            ]
            self.shape = (1, 5, *sizes)
        elif step == "depthwise":
            inputs = [value, self.weights(channels, 1, 3, 3)]
            self.value = self.node("Conv", inputs, pads=[1] * 4, group=channels)
        elif step == "relu":
            self.value = self.node("Relu", [value])
        elif step == "sigmoid":
            self.value = self.node("Sigmoid", [value])
        elif step in ("max_pool", "average_pool"):
            op = "MaxPool" if step == "max_pool" else "AveragePool"
            if min(height, width) < 3:
                return
            self.value = self.node(op, [value], kernel_shape=[2, 2], strides=[2, 1])
            self.shape = (1, channels, (height - 2) // 2 + 1, width - 1)
        elif step == "skip":
            other = self.node("Conv", [value, self.weights(channels, channels, 1, 1)])
            self.value = self.node("Add", [other, value])
        elif step == "gate":
            mean = self.node("GlobalAveragePool", [value])
            self.value = self.node("Mul", [value, self.node("Sigmoid", [mean])])
        elif step == "crop":
            if min(height, width) < 4:
                return
            ends = self.ints(height, width - 1)
            self.value = self.node("Slice", [value, self.ints(1, 1), ends, self.ints(2, 3)])
            self.shape = (1, channels, height - 1, width - 2)
        elif step == "every_second":
            ends, by = self.ints(99, 99), self.ints(2, 2)
            inputs = [value, self.ints(0, 0), ends, self.ints(2, 3), by]
            self.value = self.node("Slice", inputs)
            self.shape = (1, channels, -(-height // 2), -(-width // 2))
        elif step == "pad":
            self.value = self.node("Pad", [value, self.ints(0, 0, 1, 0, 0, 1, 0, 1)])
            self.shape = (1, channels + 1, height + 1, width + 1)
        elif step == "concat":
            other = self.node("Relu", [value])
            self.value = self.node("Concat", [value, other], axis=1)
            self.shape = (1, 2 * channels, height, width)
        elif step == "there_and_back":
            flat = self.node("Reshape", [value, self.ints(1, channels, height * width)])
            turned = self.node("Transpose", [flat], perm=[0, 2, 1])
            scaled = self.node("Mul", [turned, self.weights(channels)])
            back = self.node("Transpose", [scaled], perm=[0, 2, 1])
            self.value = self.node("Reshape", [back, self.ints(1, channels, height, width)])
        elif step == "channels_last":
            turned = self.node("Transpose", [value], perm=[0, 2, 3, 1])
            done = self.node("MatMul", [turned, self.weights(channels, 3)])
            self.value = self.node("Transpose", [done], perm=[0, 3, 1, 2])
            self.shape = (1, 3, height, width)
        else:
            mean = self.node("ReduceMean", [value, self.ints(1)], keepdims=0)
            again = self.node("Unsqueeze", [mean, self.ints(1)])
            self.value = self.node("Sub", [value, again])

    def finish(self):
        flat = self.node("Flatten", [self.value])
        weights = self.weights(6, int(np.prod(self.shape[1:])))
        self.nodes.append(helper.make_node("Gemm", [flat, weights], ["y"], transB=1))


CHAINS = st.lists(st.sampled_from(STEPS), min_size=1, max_size=7)
SEEDS = st.integers(0, 2**32 - 1)


def chained(lab, steps, seed):
    chain = Chain(np.random.default_rng(seed))
    for step in steps:
        chain.add(step)
    chain.finish()
    return lab.graph(chain.nodes, (1, 4, 12, 12), chain.constants)


@settings(max_examples=60, deadline=None)
@given(CHAINS, SEEDS)
def test_random_chain(lab, steps, seed):
    model = chained(lab, steps, seed)

    lowered = lab.float_check(model, limit=5e-5)

    assert lowered.transposes == 0
    # In int8 half steps add up over layers, in the file as in the graph's simulation; a value in
    # the wrong place is off by half the range.
    quantized, inputs = lab.quantize(model), lab.data(model)
    lowered = lower(quantized)
    scale, zero_point = lab.output_params(lowered)
    exact, simulated = (lab.onnx(graph, inputs)[0] / scale for graph in (model, quantized))
    found = lab.tflite(lowered, inputs).astype(float) - zero_point
    error, expected = (np.sqrt(np.mean((v - exact) ** 2)) for v in (found, simulated))
    assert error <= 1.5 * expected + 2


@settings(max_examples=25, deadline=None)
@given(CHAINS, SEEDS)
def test_random_chain_in_16_bits(lab, steps, seed):
    """Single steps add up over layers; a value in the wrong place is off by thousands."""
    model = chained(lab, steps, seed)
    quantized = lab.quantize(model, bits=16)

    lowered = lower(quantized)

    assert len(lowered.left_float) == len(lower(lab.quantize(model)).left_float)
    assert lab.steps(quantized, lowered, lab.data(quantized)).max() <= 256, "a step of 8 bits"
