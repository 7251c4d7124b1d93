"""Each pass's contract: what it catches, and whose fault it says that is."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import PassResult, PostconditionError, PreconditionError

from edgecls.cli.main import main
from edgecls.core.errors import GraphError, UnsupportedOperatorError
from edgecls.export import passes
from edgecls.export.passes import canonical, codes_for_arm, fuse
from edgecls.export.passes.contract import GraphPass, Pipeline
from edgecls.export.passes.fix_batch import FixBatch
from edgecls.export.passes.fold_batch_norm import FoldBatchNorm
from edgecls.export.passes.merge_factors import MergeFactors
from edgecls.export.passes.narrow_weights import NarrowWeights
from edgecls.export.passes.reduce_strength import ReduceStrength
from edgecls.export.passes.to_float16 import ToFloat16

FLOAT = "float[batch,4] input) => (float[batch,4] y"
TWO_INPUTS = "float[batch,4] input, float[4] more) => (float[batch,4] y"
NORM = "y = BatchNormalization (input, c, c, c, p)"
WEIGHTS = "w = DequantizeLinear (codes, s, z) y = MatMul (input, w)"

# By pass: a graph that it has to change, and what is said where it does not.
BROKEN = {
    "CanonicalQdq": ("w = DequantizeLinear (codes, s) y = MatMul (input, w)", "canonical Q/DQ"),
    "FixBatch": ("y = Relu (input)", "batch 1, found batch of 'input'"),
    "FoldBatchNorm": (NORM, "no BatchNormalization, found node 'y'"),
    "FuseGelu": (
        "a = Div (input, root) e = Erf (a) b = Add (e, one) h = Mul (input, b) y = Mul (h, half)",
        "no GELU written out with Erf, found node 'e'",
    ),
    "MergeFactors": (
        "a = Mul (input, half) t = Transpose (input) b = Mul (t, half) m = MatMul (a, b)"
        " y = MatMul (m, input)",
        "one factor per MatMul, found two .node 'm'",
    ),
    "NarrowWeights": (WEIGHTS, "weight codes -127..127, found -128 in 'codes'"),
    "ReduceStrength": ("y = Div (input, root)", "no Div or Pow that is a Mul, found Div .node 'y'"),
    "RoundWeights": ("y = MatMul (input, third)", "weights of 11 bits, found others in 'third'"),
    "StripSoftmax": ("a = Relu (input) y = Softmax (a)", "no softmax at the end, found node 'y'"),
    "ToFloat16": ("y = Add (input, c)", "FP16 .*, found the float32 initializer 'c'"),
}

CONSTANTS = {
    "c": np.ones(4), "p": np.full(4, 2.0), "root": np.sqrt(2), "one": 1.0, "half": 0.5,
    "s": 0.25, "third": np.full((4, 4), 1 / 3),
}  # fmt: skip


def build(body: str, interface: str = FLOAT, opset: int = 20) -> ir.Model:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> g ({interface}) {{ {body} }}'
    )
    arrays = {name: np.asarray(value, np.float32) for name, value in CONSTANTS.items()}
    arrays |= {"codes": np.full((4, 4), -128, np.int8), "z": np.int8(0)}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name)
        for name, array in arrays.items()
        if name in used
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def every_pass() -> list[type[GraphPass]]:
    for module in pkgutil.iter_modules(passes.__path__):
        import_module(f"{passes.__name__}.{module.name}")
    own = GraphPass.__subclasses__()
    return sorted((p for p in own if p.__module__.startswith(passes.__name__)), key=str)


def untouched(_: GraphPass, model: ir.Model) -> PassResult:
    return PassResult(model, modified=False)


@pytest.mark.parametrize("step", every_pass(), ids=lambda step: step.__name__)
def test_a_pass_that_does_nothing_is_caught(
    step: type[GraphPass], monkeypatch: pytest.MonkeyPatch
) -> None:
    body, message = BROKEN[step.__name__]
    assert step()(build(body)).modified

    monkeypatch.setattr(step, "call", untouched)

    with pytest.raises(PostconditionError, match=f"^{step.__name__}: expected {message}"):
        step()(build(body))


def rename_output(model: ir.Model) -> None:
    model.graph.outputs[0].name = "other"


def widen_output(model: ir.Model) -> None:
    model.graph.outputs[0].dtype = ir.DataType.DOUBLE


def drop_input(model: ir.Model) -> None:
    model.graph.inputs.pop()


def raise_opset(model: ir.Model) -> None:
    model.opset_imports[""] = 21


def reverse(model: ir.Model) -> None:
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.append(first)


def drop_initializer(model: ir.Model) -> None:
    del model.graph.initializers["half"]


def drop_last(model: ir.Model) -> None:
    model.graph.remove(model.graph[-1])


def name_twice(model: ir.Model) -> None:
    model.graph[0].outputs[0].name = "half"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (rename_output, "outputs .*'y'.* as before, found .*'other'"),
        (widen_output, "outputs .*FLOAT.* as before, found .*DOUBLE"),
        (drop_input, "inputs .*'input'.* as before, found ..$"),
        (raise_opset, "opsets .*20.* as before, found .*21"),
        (reverse, "values in order, found 'a' read by node 'y' before it is made"),
        (drop_initializer, "values in order, found 'half' read by node 'y'"),
        (drop_last, "values in order, found output 'y', which nothing makes"),
        (name_twice, "values in order, found two values called 'half'"),
    ],
)
def test_what_no_pass_may_do_is_caught(harm: Callable[[ir.Model], None], message: str) -> None:
    class Harmful(GraphPass):
        def call(self, model: ir.Model) -> PassResult:
            harm(model)
            return PassResult(model, modified=True)

    with pytest.raises(PostconditionError, match=f"^Harmful: expected {message}"):
        Harmful()(build("a = Relu (input) y = Mul (a, half)"))


def test_a_graph_that_came_out_of_order_is_no_pass_s_fault() -> None:
    model = build("a = Relu (input) y = Div (a, half)")
    reverse(model)

    assert ReduceStrength()(model).modified


def test_initializers_that_are_inputs_too_are_no_inputs() -> None:
    proto = ir.to_proto(build(BROKEN["CanonicalQdq"][0]))
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("codes", onnx.TensorProto.INT8, (4, 4))
    )

    assert [value.name for value in canonical(proto).graph.input] == ["input"]


def unknown_type() -> ir.Model:
    model = build("a = Relu (input) y = Relu (a)")
    model.graph[0].outputs[0].type = None
    return model


@pytest.mark.parametrize(
    ("step", "model", "message"),
    [
        (FoldBatchNorm(), build("y = Relu (input)", opset=12), "opset 13 or later, found opset 12"),
        (
            NarrowWeights(), build(BROKEN["CanonicalQdq"][0]),
            "canonical Q/DQ, found a scale or zero point that is not written out "
            r"\(DequantizeLinear, node 'w'\)",
        ),
        (
            FixBatch(), build("y = Add (input, more)", TWO_INPUTS),
            "one input, found input, more",
        ),
        (ToFloat16(), unknown_type(), "known types, found none of 'a'"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_a_pass_relies_on_is_checked(step: GraphPass, model: ir.Model, message: str) -> None:
    with pytest.raises(PreconditionError, match=f"^{type(step).__name__}: expected {message}"):
        step(model)


ACTIVATION = "q = QuantizeLinear (input, s, z) x = DequantizeLinear (q, s, z) y = Relu (x)"


@pytest.mark.parametrize(
    ("body", "constants", "fault"),
    [
        (ACTIVATION, {"s": np.float32(1), "z": np.uint8(1)}, "uint8 codes"),
        (ACTIVATION, {"s": np.float32(-1), "z": np.int8(1)}, "float32 scales, not all"),
        (ACTIVATION, {"s": np.float64(1), "z": np.int8(1)}, "float64 scales, not all"),
        (ACTIVATION, {"s": np.ones(1, np.float32), "z": np.zeros(1, np.int8)}, r"scales of shape"),
        (ACTIVATION, {"s": np.float32(1), "z": np.zeros(1, np.int8)}, r"scales of shape \(\) with"),
        (
            "q = QuantizeLinear (input, s, z) k = Clip (q, z) y = DequantizeLinear (k, s, z)",
            {"s": np.float32(1), "z": np.int8(0)}, "a Clip of codes",
        ),
    ],
)  # fmt: skip
def test_other_forms_of_qdq_are_not_canonical(
    body: str, constants: dict[str, np.ndarray], fault: str
) -> None:
    model = build(body)
    for name, array in constants.items():
        model.graph.initializers[name].const_value = ir.tensor(np.asarray(array), name=name)

    with pytest.raises(PreconditionError, match=f"canonical Q/DQ, found {fault}"):
        NarrowWeights()(model)


def test_codes_that_others_see_may_be_unsigned() -> None:
    model = build(
        "q = QuantizeLinear (input, s, z) m = Transpose (q) y = DequantizeLinear (m, s, z)"
    )
    model.graph.initializers["z"].const_value = ir.tensor(np.asarray(np.uint8(3)), name="z")

    assert not NarrowWeights()(model).modified


def test_a_users_graph_stays_the_users_fault() -> None:
    """onnx_ir's own pipelines wrap a GraphError in a PassError, which would be exit 70."""
    training = build(NORM.replace("ion (", "ion <training_mode=1> ("))
    asymmetric = build(WEIGHTS)
    asymmetric.graph.initializers["z"].const_value = ir.tensor(np.int8(3), name="z")

    with pytest.raises(GraphError, match="training mode"):
        fuse(ir.to_proto(training))
    with pytest.raises(GraphError, match="training mode"):
        Pipeline(MergeFactors(), Pipeline(FoldBatchNorm()))(training)
    with pytest.raises(UnsupportedOperatorError, match="asymmetric"):
        canonical(ir.to_proto(asymmetric))


def test_computed_parameters_of_a_batch_norm_are_the_users_fault() -> None:
    model = build("m = Abs (more) y = BatchNormalization (input, c, c, m, p)", TWO_INPUTS)

    with pytest.raises(GraphError, match=r"node 'y'\): expected constant parameters, found"):
        FoldBatchNorm()(model)


def test_the_pipelines_say_whether_they_changed_anything() -> None:
    nothing = ir.to_proto(build("y = Relu (input)"))

    assert fuse(nothing) is nothing
    found, changed = codes_for_arm(ir.to_proto(build(WEIGHTS)))
    codes = next(t for t in found.graph.initializer if t.name == "codes")
    assert changed == 16
    assert (onnx.numpy_helper.to_array(codes) == -127).all()


def test_a_broken_contract_is_our_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build(
        "f = Flatten (input) r = Relu (f) y = Div (r, root)",
        "float[batch,1,28,28] input) => (float[batch,784] y",
    )
    (tmp_path / "model.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    monkeypatch.setattr(ReduceStrength, "call", untouched)
    monkeypatch.chdir(tmp_path)

    options = {"--target": "jetson", "--precision": "fp32", "--preprocess": "mnist", "-o": "out"}
    with pytest.raises(SystemExit) as stop:
        main(["export", "model.onnx", *(word for option in options.items() for word in option)])

    assert stop.value.code == 70
    message = capsys.readouterr().err
    assert "a bug in edgecls: PostconditionError: ReduceStrength: expected no Div" in message
    assert not (tmp_path / "out").exists()
