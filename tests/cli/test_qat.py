"""`edgecls qat`: what was trained is what ships, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgecls.bundle import Bundle
from edgecls.core.values import relative_difference
from edgecls.models import load_model
from edgecls.runtimes import load
from edgecls.runtimes.tensorrt_build import tensorrt_rtx_available
from edgecls.workflows.graph import run_onnx

from .learned import train_lenet, write_digits

Command = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("one_thread")
FILES = [
    "last.ckpt", "metrics.csv", "model.onnx", "model.safetensors", "qat.json", "simulation.onnx",
    "table.json", "train.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 digits to learn from, 100 to judge by, and a float model of them."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(root, train=slice(0, 4800, 16), val=slice(1, None, 50))
    train_lenet(root, "train", "float")
    return root


def arguments(data: Path, out: Path, *flags: object, **more: object) -> list[object]:
    options = {
        "data": data / "train", "val": data / "val", "epochs": 2, "augment": "none", "threads": 1,
        "calib_images": 40, "lr": 0.02, **more,
    }  # fmt: skip
    given = [
        part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)
    ]
    targets = () if "--target" in flags else ("--target", "raspberry-pi")
    return ["qat", data / "float", *given, *targets, *flags, "-o", out]


def learned_scales(out: Path) -> set[float]:
    """What the checkpoint that was kept holds, not what any file made of it."""
    import safetensors.numpy

    logarithms = safetensors.numpy.load_file(out / "model.safetensors")["logarithms"]
    scales = torch.from_numpy(logarithms).exp()
    symmetric = '"symmetric"' in (out / "train.json").read_text()
    return set((scales.half().float() if symmetric else scales).tolist())


def pair_scales(model: onnx.ModelProto) -> set[float]:
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {
        float(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


def tflite_scales(data: bytes) -> set[float]:
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_content=data).get_tensor_details()
    return {
        float(scale)
        for tensor in details
        if tensor["dtype"] == np.int8
        for scale in tensor["quantization_parameters"]["scales"]
    }


def test_what_was_trained_is_what_ships(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """The scales in the TFLite file, and the answers of LiteRT, the simulation and the module."""
    out = tmp_path / "out"

    done = edgecls(*arguments(digits_folder, out, "--json"))
    exported = edgecls("export", out, "--target", "raspberry-pi", "-o", tmp_path / "bundles")

    assert done.code == 0, done.err
    assert sorted(file.name for file in out.iterdir()) == FILES
    assert exported.code == 0, exported.err
    assert "the scales that were trained ship to raspberry-pi" in exported.err
    scales = learned_scales(out)
    simulation = onnx.load(out / "simulation.onnx")
    bundle = Bundle(tmp_path / "bundles/raspberry-pi")
    assert len(scales) == json.loads((out / "train.json").read_text())["quantized"]["points"]
    assert bundle.manifest.calibration is not None
    trained = bundle.manifest.calibration.learned
    assert trained == len(json.loads((out / "table.json").read_text())["learned"]) >= len(scales)
    assert f"{trained} ranges trained" in edgecls("inspect", bundle.path).out
    assert pair_scales(simulation) == scales
    assert scales <= tflite_scales(bundle.read(bundle.manifest.artefacts[0].path))

    model = load_model(str(out))
    assert model.preprocess is not None
    pixels = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
    expected = run_onnx(simulation, model.preprocess.normalize(pixels))
    litert = load(bundle, backend="litert").logits(pixels)
    assert relative_difference(expected, litert) < 0.03  # a step or two of the logits

    rows = {row["who"]: row for row in json.loads(done.out)["rows"]}
    assert rows["QAT"]["accuracy"]["images"] == 100
    assert rows["PTQ"]["gain"]["points"] == pytest.approx(
        rows["QAT"]["accuracy"]["top1"] - rows["PTQ"]["accuracy"]["top1"]
    )
    judged = json.loads(edgecls("evaluate", out, "--data", digits_folder / "val", "--json").out)
    assert judged["top1"] == pytest.approx(rows["QAT"]["accuracy"]["top1"])
    assert "simulation of int8 on raspberry-pi" in judged["backend"]


def test_a_jetsons_scales_are_those_in_its_graph(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """Over FP16, to the last bit; TensorRT-RTX parses and builds it where it is installed."""
    out = tmp_path / "out"
    targets = ("--target", "jetson", "--target", "raspberry-pi")

    done = edgecls(*arguments(digits_folder, out, *targets, teacher_alpha=0.5))
    exported = edgecls("export", out, *targets, "--target", "desktop-gpu", "-o", tmp_path / "b")

    assert done.code == 0, done.err
    assert "QAT, raspberry-pi *" in done.out
    assert exported.code == 0, exported.err
    assert "raspberry-pi: the ranges that were trained for jetson" in exported.err
    scales = learned_scales(out)
    bundle = Bundle(tmp_path / "b/jetson")
    graph = onnx.load_from_string(bundle.read(bundle.manifest.artefacts[0].path))
    assert pair_scales(onnx.load(out / "simulation.onnx")) == scales
    assert pair_scales(graph) == scales
    assert all(
        not numpy_helper.to_array(t).any()
        for node in graph.graph.node if node.op_type == "QuantizeLinear"
        for t in graph.graph.initializer if t.name == node.input[2]
    )  # fmt: skip
    formats = [item.format for item in Bundle(tmp_path / "b/desktop-gpu").manifest.artefacts]
    assert ("tensorrt-rtx" in formats) == (tensorrt_rtx_available() is not None)


def test_a_plan_writes_nothing(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    done = edgecls(*arguments(digits_folder, tmp_path / "out", "--dry-run", "--json"))

    plan = json.loads(done.out)
    assert done.code == 0, done.err
    assert (plan["target"], plan["points"], plan["layers"]) == ("raspberry-pi", 6, 5)
    assert plan["training"]["macs"] > 100_000
    assert not (tmp_path / "out").exists()


def test_a_given_table_is_where_it_begins(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """At a learning rate of nearly nothing its scales come out as they were."""
    table = tmp_path / "table.json"
    made = edgecls("calibrate", digits_folder / "float", "--data", digits_folder / "train",
                   "--method", "percentile", "--percentile", 99, "-o", table)  # fmt: skip
    assert made.code == 0, made.err
    out = tmp_path / "out"

    done = edgecls(*arguments(digits_folder, out, calib_table=table, epochs=1, lr=1e-12))
    plain = edgecls("export", digits_folder / "float", "--calib-table", table, "--target",
                    "raspberry-pi", "--keep-graphs", tmp_path / "graphs",
                    "-o", tmp_path / "b")  # fmt: skip

    assert (done.code, plain.code) == (0, 0), done.err + plain.err
    (graph,) = (tmp_path / "graphs").glob("qdq.*.onnx")
    first, last = sorted(pair_scales(onnx.load(graph))), sorted(learned_scales(out))
    np.testing.assert_allclose(first, last, rtol=1e-6)


@pytest.mark.slow
def test_it_goes_on_after_a_kill(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    """In the training, and when it was done but its files were not: the same, byte for byte."""
    whole = tmp_path / "whole"
    assert edgecls(*arguments(digits_folder, whole, epochs=3, teacher_alpha=0.3)).code == 0
    for place in ("epoch", "files"):
        out = tmp_path / place
        command = [str(part) for part in arguments(digits_folder, out, epochs=3, teacher_alpha=0.3)]
        killed = subprocess.run(
            [sys.executable, "-c", _KILLED, place, *command], check=False, capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert killed.returncode == -9, killed.stderr
        early = edgecls("export", out, "--target", "raspberry-pi", "-o", tmp_path / "b")
        assert early.code == 4
        assert "not finished" in early.err

        done = edgecls(*command, "--resume")

        assert done.code == 0, done.err
        for part in FILES[1:]:
            assert (out / part).read_bytes() == (whole / part).read_bytes(), part


_KILLED = """
import os, signal, sys
from edgecls.cli import qat
from edgecls.cli.main import main
from edgecls.workflows import qat as workflow

def kill(*parts):
    if sys.argv[1] == "files" or parts[0].epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == "files":
    workflow.write_table = kill
else:
    qat.print_epoch = kill
main(sys.argv[2:])
"""


def test_a_loss_that_is_not_finite_ends_it(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    done = edgecls(*arguments(digits_folder, tmp_path / "out", lr=1e20))

    assert done.code == 1
    assert "training diverged" in done.err


def test_what_is_refused(edgecls: Command, digits_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert edgecls(*arguments(digits_folder, out, epochs=1)).code == 0
    model = digits_folder / "float"
    onto = ("--data", digits_folder / "train", "--epochs", 1, "-o", tmp_path / "other")
    cases = (
        (arguments(digits_folder, out, epochs=1), 2, "--resume goes on"),
        (arguments(digits_folder, out, "--resume", epochs=1, teacher_alpha=0.5), 4, "alpha"),
        (["qat", out, *onto, "--target", "jetson"], 2, "was trained by edgecls qat"),
        (["train", out, *onto], 2, "finished graph"),
        (["qat", "lenet5", *onto, "--target", "jetson"], 2, "has learned nothing"),
        (["qat", model, *onto, "--target", "jetson", "--freeze", "conv1"], 2, "--freeze"),
        (["qat", model, *onto, "--target", "jetson", "--temperature", 2], 2, "--teacher-alpha"),
        (
            ["qat", model, *onto, "--target", "jetson", "--calib", digits_folder / "train",
             "--calib-table", out / "table.json"], 2, "leave one out",
        ),
        (
            ["qat", model, *onto, "--target", "jetson", "--calib-table", out / "table.json"], 4,
            "made for the graph",
        ),
        (["export", out, "--weights", out / "model.safetensors", "--target", "jetson", "-o",
          tmp_path / "b"], 2, "holds its own weights"),
    )  # fmt: skip
    for command, code, reason in cases:
        done = edgecls(*command)

        assert (done.code, reason in done.err) == (code, True), (command, done.err)
    assert not (tmp_path / "other").exists()


def test_other_precisions_say_what_they_are(
    edgecls: Command, digits_folder: Path, tmp_path: Path
) -> None:
    """16-bit activations keep all that was seen; FP16 has the trained weights, and no ranges."""
    out = tmp_path / "out"
    assert edgecls(*arguments(digits_folder, out, epochs=1)).code == 0

    wide = edgecls("export", out, "--target", "raspberry-pi", "--precision", "int16x8", "-o",
                   tmp_path / "wide")  # fmt: skip
    half = edgecls("export", out, "--target", "raspberry-pi", "--precision", "fp16", "-o",
                   tmp_path / "half")  # fmt: skip

    assert wide.code == 0, wide.err
    assert "trained for int8, int16x8 has others" in wide.err
    calibration = Bundle(tmp_path / "wide/raspberry-pi").manifest.calibration
    assert calibration is not None
    assert calibration.learned == 0
    assert half.code == 0, half.err
    assert "trained" not in half.err
