"""The check for a JetPack as part of an export: on what ships, and before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecls.core.errors import UnsupportedOperatorError, UsageError
from edgecls.core.progress import Quiet
from edgecls.targets import TARGETS
from edgecls.workflows import export as export_module
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions

if TYPE_CHECKING:
    from edgecls.core.values import Precision

    from ..conftest import Command, Digits


def options(digits: Digits, out: Path, **changes: object) -> ExportOptions:
    values: dict[str, object] = {
        "source": "lenet5", "weights": digits.weights, "targets": ("jetson",), "out": out,
        "calib": digits.train, "calib_images": 40, "jetpack": "6.2",
    }  # fmt: skip
    return ExportOptions(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", TARGETS["jetson"].precisions)
def test_what_ships_passes(digits: Digits, tmp_path: Path, precision: Precision) -> None:
    made = export(options(digits, tmp_path, precision=precision, module="orin-nx-16gb"), Quiet())

    found = made.preflight
    assert found is not None
    assert (found.jetpack, found.tensorrt, found.module) == ("6.2", "10.3", "orin-nx-16gb")
    shipped = made.bundles[0].manifest.artefacts[0].path
    nodes = [node.op_type for node in onnx.load(tmp_path / "jetson" / shipped).graph.node]
    assert found.operators == {name: nodes.count(name) for name in sorted(set(nodes))}
    assert ("QuantizeLinear" in found.operators) == (precision == "int8")
    convolutions = [node for node in found.dla if node.operator == "Conv"]
    assert convolutions
    assert all(node.runs == "dla" for node in convolutions)


def test_without_a_jetpack_nothing_is_checked(digits: Digits, tmp_path: Path) -> None:
    made = export(options(digits, tmp_path, precision="fp32", jetpack=None), Quiet())

    assert made.preflight is None


def network(path: Path) -> Path:
    """A classifier that ONNX Runtime runs, with an operator that no TensorRT has."""
    weights = np.random.default_rng(0).normal(size=(784, 10)).astype(np.float32)
    keep = numpy_helper.from_array(np.ones(28, bool), "keep")
    made = helper.make_graph(
        [
            helper.make_node("Compress", ["image", "keep"], ["rows"], "pick_rows", axis=2),
            helper.make_node("Flatten", ["rows"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [keep, numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=10), path)
    return path


def test_an_operator_that_tensorrt_lacks_ends_the_export(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(tmp_path / "net.onnx")
    monkeypatch.setattr(export_module, "calibrate", None)  # it is not reached

    with pytest.raises(UnsupportedOperatorError, match="its parser does not have it") as caught:
        export(options(digits, tmp_path / "out", source=str(model), weights=None,
                       preprocess="mnist"), Quiet())  # fmt: skip

    assert caught.value.operator == "Compress"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jetpack": "6.3"}, "6.1, 6.2"),
        ({"module": "orin"}, "orin-nano"),
        ({"module": "agx-thor"}, "choose JetPack 7.0"),
        ({"jetpack": None, "module": "orin-nano"}, "--module needs --jetpack"),
        ({"targets": ("raspberry-pi",)}, "add --target jetson"),
    ],
)
def test_a_device_that_is_not_in_the_table_is_usage(
    digits: Digits, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        export(options(digits, tmp_path, **changes), Quiet())

    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_on_the_command_line(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    common = ["export", "lenet5", "--weights", str(digits.weights), "--target", "jetson",
              "--precision", "fp16", "-o", str(tmp_path / "out")]  # fmt: skip

    done = edgecls(*common, "--jetpack", "6.2", "--module", "orin-nx-8gb")
    unknown = edgecls(*common, "--jetpack", "6.2", "--module", "nano")

    assert done.code == 0, done.err
    assert "JetPack 6.2, orin-nx-8gb: TensorRT 10.3 takes all" in done.out
    assert "DLA (1 cores):" in done.out
    assert unknown.code == 2
    assert "orin-nano, orin-nx-8gb" in unknown.err


def test_the_table_is_shown_before_an_export(edgecls: Command) -> None:
    import json

    one = json.loads(edgecls("targets", "--jetpack", "6.2", "--json").out)
    every = json.loads(edgecls("targets", "--devices", "--json").out)

    assert [row["tensorrt"] for row in one["jetpacks"]] == ["10.3"]
    assert {row["soc"] for row in one["modules"]} == {"orin"}
    assert one["jetpacks"][0]["sources"]
    assert len(every["jetpacks"]) > 5
    assert every["pi_os"]
    shown = edgecls("targets", "--devices").out
    assert "bookworm" in shown
    assert "7.2.1" in shown
    assert edgecls("targets", "--module", "agx-thor").out.count("orin") <= 2
    assert edgecls("targets", "--jetpack", "1").code == 2
