"""The parts of the triage, each against what is known without it."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgecls.core.errors import DataError
from edgecls.core.preprocess import PRESETS, Preprocess
from edgecls.core.progress import Quiet
from edgecls.core.values import Logits, Pixels
from edgecls.data.images import list_images
from edgecls.data.labels import Labels
from edgecls.drift.explanation import Explanation, StageFinding, cost_of
from edgecls.drift.paired import Paired
from edgecls.workflows.triage.chain import UNKNOWN, Chain, State, paired
from edgecls.workflows.triage.images import find_names, jpeg_quality
from edgecls.workflows.triage.labels import described, meaning
from edgecls.workflows.triage.layers import ErrorSum, FloatValues
from edgecls.workflows.triage.layers_onnx import onnx_layers
from edgecls.workflows.triage.preprocessing import differences
from edgecls.workflows.triage.stored import Stored, differing, read_stored


@pytest.mark.parametrize("quality", [1, 5, 30, 50, 75, 90, 97])
def test_quality_of_what_libjpeg_wrote(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)

    assert jpeg_quality(Image.open(file)) == quality


def test_names_with_other_endings_and_folders() -> None:
    known = ["/far/away/cat/1.png", "/far/away/dog/1.png", "/far/away/dog/2.jpg"]

    assert find_names(["dog/1.jpg", "dog/2.jpg", "cat/2.png"], known) == [
        "/far/away/dog/1.png", "/far/away/dog/2.jpg", None,
    ]  # fmt: skip
    with pytest.raises(DataError, match="cannot be told"):
        find_names(["1.jpg"], known)


def test_the_same_normalisation_spelled_otherwise() -> None:
    one = Preprocess(scale=255.0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    other = Preprocess(scale=1.0, mean=(127.5,) * 3, std=(63.75,) * 3)
    differing_stages, same = differences(one, other)

    assert differing_stages == ()
    assert len(same) == 5


def test_stages_of_two_preprocessings() -> None:
    one = PRESETS["imagenet"]
    other = msgspec.structs.replace(one, exif=False, crop=0, resize=(224, 200), color="bgr")
    found, same = differences(one, other)

    assert [(item.stage, item.expected, item.found) for item in found] == [
        ("orientation", "EXIF applied", "EXIF ignored"),
        ("channel order", "RGB", "BGR"),
        ("resize and crop", "shorter side to 256, centre crop 224x224", "squashed to 200x224"),
    ]
    (drafted,), _ = differences(one, msgspec.structs.replace(one, draft=2))
    assert (drafted.stage, drafted.found) == (
        "interpolation",
        "bicubic with antialiasing, JPEG reduced to no less than 2 times the size",
    )
    assert same == ("interpolation", "normalisation")
    with pytest.raises(DataError, match="gray"):
        differences(one, PRESETS["mnist"])


def test_label_maps_are_compared_by_meaning() -> None:
    expected = Labels(names=("crane", "Tiger cat", "crane", "dog"))
    found = Labels(names=("crane", "dog", "crane", "tiger_cat"))
    swapped = Labels(names=("dog", "wolf", "crane", "crane"))

    assert meaning(expected, found).tolist() == [0, 3, 2, 1]
    assert meaning(expected, swapped).tolist() == [3, UNKNOWN, 2, UNKNOWN]
    assert described(expected, found, meaning(expected, found)) == (
        "output 1 is 'Tiger cat'", "'dog'; 2 of 4 outputs have another name",
    )  # fmt: skip


def test_costs_have_exact_intervals() -> None:
    cost = cost_of(Paired(30, 10, 200))
    nothing = cost_of(Paired(0, 0, 200))

    assert cost.points == 10
    assert cost.shown
    # Tango 1998 for b = 30, c = 10, n = 200 gives 4.1 .. 16.4 by its normal approximation.
    assert cost.lower == pytest.approx(4.1, abs=0.8)
    assert cost.upper == pytest.approx(16.4, abs=0.8)
    assert not nothing.shown
    assert nothing.upper == pytest.approx(-nothing.lower)
    assert cost_of(Paired(10, 30, 200)).upper == pytest.approx(-cost.lower, abs=1e-3)


def finding(stage: str, cost: Paired, alone: Paired | None) -> StageFinding:
    return StageFinding(
        stage=stage, expected="a", found="b", cost=cost_of(cost),  # type: ignore[arg-type]
        alone=None if alone is None else cost_of(alone),
    )  # fmt: skip


def test_blame() -> None:
    none, some = Paired(0, 0, 100), Paired(30, 0, 100)

    def blamed(*stages: StageFinding) -> list[str]:
        found = Explanation(
            reference="a", candidate="b", measure="top1", images=100, reference_percent=100.0,
            candidate_percent=70.0, total=cost_of(some), stages=stages, same=(),
        )  # fmt: skip
        return [stage.stage for stage in found.blamed]

    assert blamed(finding("data", some, None), finding("lowering", none, none)) == ["data"]
    assert blamed(finding("data", some, some), finding("lowering", some, none)) == ["data"]
    assert blamed(finding("data", none, none), finding("lowering", some, none)) == ["lowering"]
    assert blamed(finding("data", none, some)) == ["data"]
    assert blamed(finding("data", none, none)) == []


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_paired_counts(rights: list[tuple[bool, bool]]) -> None:
    before, after = (np.asarray(column) for column in zip(*rights, strict=True))
    counts = paired(before, after)

    assert counts.images == len(rights)
    assert counts.lost - counts.gained == before.sum() - after.sum()
    assert counts.lost + counts.gained == (before != after).sum()


def brightness(pixels: Pixels, preprocess: Preprocess) -> Logits:
    """Answer class 1 to a bright image, after normalisation."""
    mean = preprocess.normalize(pixels).mean((1, 2, 3))
    return np.stack([np.zeros_like(mean), mean], axis=1)


def test_a_chain_runs_each_state_on_what_all_can_read(tmp_path: Path) -> None:
    for index in range(11):
        Image.new("RGB", (8, 8), (25 * index,) * 3).save(tmp_path / f"{index:02}.png")
    (tmp_path / "03.png").write_bytes(b"broken")
    images = list_images(tmp_path)
    plain = Preprocess(resize=8, crop=8, mean=(0.5,) * 3, std=(1.0,) * 3)
    darker = msgspec.structs.replace(plain, mean=(0.9,) * 3)
    recorded = np.asarray([0] * 10 + [UNKNOWN], np.int64)
    chain = Chain(
        files=(images,), runs=(brightness, recorded), size=(8, 8), meaning=np.asarray([1, 0])
    )
    states = [
        State(files=0, preprocess=plain, run=0),
        State(files=0, preprocess=darker, run=0),
        State(files=0, preprocess=darker, run=0, relabelled=True),
        State(files=0, preprocess=plain, run=1),
    ]
    answers, taken, reasons = chain.answers(states, Quiet())
    bright, dark, swapped, kept = (answers[state][taken].tolist() for state in states)

    assert np.flatnonzero(~taken).tolist() == [3, 10]
    assert set(reasons) == {"03.png", "10.png"}
    assert bright == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert dark == [0] * 9
    assert swapped == [1] * 9
    assert kept == [0] * 9


def stored(scale: float, weights: str = "") -> Stored:
    return Stored(
        scales=np.asarray([scale], np.float32), zero_points=np.zeros(1, np.int64), weights=weights
    )


def test_scales_that_differ_are_named_where_the_plan_says_enough() -> None:
    plan = {"a": stored(0.1), "b": stored(0.2, "x")}
    near, far = {**plan, "a": stored(0.11)}, {**plan, "a": stored(0.4)}
    common = {"same_graph": True, "exact": False}

    assert differing(plan, near, **common)[1] == "on others: scales differ by 10 % at most"
    assert differing(plan, far, **common) == ("a with scale 0.1", "0.4 (4 times)")
    assert differing(plan, near, same_graph=True, exact=True)[1] == "0.11 (1.1 times)"
    assert differing(plan, {**plan, "b": stored(0.2, "y")}, **common)[1] == "others in b"
    assert "another model" in differing(
        plan, {**plan, "b": stored(0.2, "y")}, same_graph=False, exact=False
    )[1]  # fmt: skip
    assert "another graph" in differing(plan, {"a": stored(0.1)}, **common)[1]


def test_errors_are_relative_root_mean_squares() -> None:
    total = ErrorSum()
    total.add("a", np.asarray([3.0, 4.0], np.float32), np.asarray([3.0, 3.0]))
    total.add("a", np.asarray([0.0], np.float32), np.asarray([1.0]))

    assert total.relative("a") == pytest.approx((2 / 25) ** 0.5)
    assert total.relative("never seen") == 0


def scaled_twice(second: float) -> onnx.ModelProto:
    """Return y = (x * 2) * 3 with Q/DQ on both products, the second with a scale of ``second``."""
    constants = [
        numpy_helper.from_array(np.asarray(value, dtype), name)
        for name, value, dtype in (
            ("two", 2.0, np.float32), ("three", 3.0, np.float32), ("zero", 0, np.int8),
            ("good", 2 / 127, np.float32), ("second", second, np.float32),
        )
    ]  # fmt: skip
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["a"]),
        helper.make_node("QuantizeLinear", ["a", "good", "zero"], ["aq"], "a_q"),
        helper.make_node("DequantizeLinear", ["aq", "good", "zero"], ["ad"], "a_dq"),
        helper.make_node("Mul", ["ad", "three"], ["b"]),
        helper.make_node("QuantizeLinear", ["b", "second", "zero"], ["bq"], "b_q"),
        helper.make_node("DequantizeLinear", ["bq", "second", "zero"], ["bd"], "b_dq"),
        helper.make_node("Mul", ["bd", "two"], ["y"]),
    ]
    shape = [1, 64]
    known = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ab"]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], constants,
        value_info=known,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_layer_is_not_blamed_for_what_it_was_given() -> None:
    x = np.linspace(-1, 1, 64, dtype=np.float32)[None]
    values = {"x": x, "a": 2 * x, "b": 6 * x, "y": 12 * x}
    coarse = 2.0
    layers = {layer.name: layer for layer in onnx_layers(scaled_twice(coarse), [values])}
    kept = np.rint(6 * x / coarse).clip(-128, 127) * coarse
    wrong = float(np.sqrt(((kept - 6 * x) ** 2).sum() / ((6 * x) ** 2).sum()))

    assert layers["a"].error < 0.01
    assert layers["b"].error == pytest.approx(wrong, rel=0.02)
    assert layers["b"].inputs_error < 0.01
    assert layers["y"].error == pytest.approx(wrong, rel=0.02), "it passes on what it was given"
    assert layers["y"].inputs_error == pytest.approx(wrong, rel=1e-6)


def test_float_values_of_every_tensor() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Neg", ["r"], ["y"])]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 1, 2]) for n in "xry"]
    graph = helper.make_graph(nodes, "g", info[:1], info[2:], value_info=info[1:2])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    run = FloatValues(model)
    values = run(np.asarray([[[[-1.0, 2.0]]]], np.float32))

    assert {name: value.ravel().tolist() for name, value in values.items()} == {
        "x": [-1, 2], "r": [0, 2], "y": [0, -2],
    }  # fmt: skip
    assert run.operators == {"r": "Relu", "y": "Neg"}


def test_the_codes_of_a_bias_are_no_weights_of_a_graph() -> None:
    """They change with the calibration, as their scale is the input's times the weights'."""

    def graph(bias: int) -> bytes:
        model = onnx.parser.parse_model(f"""
            <ir_version: 10, opset_import: ["" : 20]>
            net (float[1,2] input) => (float[1,2] output)
            <int8[2,2] w = {{1, 2, 3, 4}}, int32[2] b = {{{bias}, 5}}, float scale = {{0.1}}>
            {{
                weights = DequantizeLinear (w, scale)
                added = DequantizeLinear (b, scale)
                output = Gemm (input, weights, added)
            }}
        """)
        for node in model.graph.node:
            node.name = node.output[0]
        return bytes(model.SerializeToString())

    one, other = read_stored(graph(7), "onnx"), read_stored(graph(8), "onnx")

    assert one["weights"].weights
    assert differing(one, other, exact=False, same_graph=True)[0] == "calibrated on these images"
