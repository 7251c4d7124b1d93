"""What the full placement quantizes runs in int8: graphs from calibration to LiteRT."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import place_qdq
from edgecls.export.tflite import lower
from edgecls.targets.raspberry_pi import TARGET


def placed(lab, model):
    images = [(str(index), image[None]) for index, image in enumerate(lab.data(model))]
    table = collect_ranges(model, images, method="minmax", seed=0)
    return place_qdq(model, table, TARGET.scheme).model


def check(lab, model, *, steps=1):
    """Lower and compare with the simulation of the same Q/DQ graph, in steps of the output."""
    quantized = placed(lab, model)
    lowered = lower(quantized)

    assert lowered.left_float == ()
    assert lab.steps(quantized, lowered, lab.data(model)).max() <= steps
    return lowered


def convolution(lab, source="x", output="c"):
    weight = lab.rng.normal(0, 0.4, (6, 3, 3, 3)).astype(np.float32)
    return helper.make_node("Conv", [source, "w"], [output], pads=[1] * 4), {"w": weight}


@pytest.mark.parametrize("shape", [(6, 1, 1), (1,)])
def test_prelu(lab, operators, shape):
    node, constants = convolution(lab)
    constants["slopes"] = lab.rng.uniform(-0.5, 1, shape).astype(np.float32)
    nodes = [node, helper.make_node("PRelu", ["c", "slopes"], ["y"])]

    # The convolution's own step, times a slope below one, and the step of the PRelu.
    lowered = check(lab, lab.graph(nodes, (1, 3, 6, 5), constants), steps=2)

    assert operators(lowered)["PRELU"] == 1


@pytest.mark.parametrize(("low", "high"), [(-0.4, 0.8), (0.0, 1.3), (None, 0.5), (0.25, 0.75)])
def test_convolution_saturates_where_a_clip_does(lab, operators, low, high):
    node, constants = convolution(lab)
    names = []
    for name, bound in (("low", low), ("high", high)):
        names.append(name if bound is not None else "")
        if bound is not None:
            constants[name] = np.float32(bound)
    nodes = [node, helper.make_node("Clip", ["c", *names], ["y"])]

    lowered = check(lab, lab.graph(nodes, (1, 3, 6, 5), constants))

    # Zero is always a code: only what keeps the values away from it needs an operator.
    found = operators(lowered)
    assert found["QUANTIZE"] == 0
    assert found["MINIMUM"] == 0
    assert found["MAXIMUM"] == (low == 0.25)


@settings(max_examples=30, deadline=None)
@given(
    op=st.sampled_from(["Max", "Min"]),
    constant=st.sampled_from([None, (), (6, 1, 1), (5,)]),
    first=st.booleans(),
    gate=st.sampled_from(["Sigmoid", "Relu", "Tanh"]),
)
def test_extremum(lab, op, constant, first, gate):
    node, constants = convolution(lab)
    nodes, names = [node, helper.make_node(gate, ["c"], ["g"])], ["c", "g"]
    if constant is not None:
        constants["k"] = lab.rng.normal(0, 0.5, constant).astype(np.float32)
        names = ["k", "c"] if first else ["c", "k"]
    nodes.append(helper.make_node(op, names, ["y"]))
    used = {name for made in nodes for name in made.input}
    nodes = [made for made in nodes if made.output[0] in used | {"y"}]

    # The convolution's step and that of bringing it to the output's parameters.
    check(lab, lab.graph(nodes, (1, 3, 6, 5), constants), steps=2)
