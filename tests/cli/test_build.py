"""``edgecls build``: without a GPU, as far as TensorRT-RTX builds without one."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecls.cli.remote import predict_options
from edgecls.cli.show import TerminalProgress
from edgecls.core.errors import MissingError
from edgecls.core.stderr import without_info
from edgecls.runtimes.cuda import current_device
from edgecls.runtimes.engine_options import EngineOptions
from edgecls.runtimes.tensorrt_build import tensorrt_rtx_available

if TYPE_CHECKING:
    from ..conftest import Command, Digits

needs_rtx = pytest.mark.skipif(
    tensorrt_rtx_available() is None, reason="TensorRT-RTX is not installed"
)


@pytest.fixture(autouse=True)
def no_gpu() -> None:
    try:
        current_device()
    except MissingError:
        return
    pytest.skip("there is a GPU: tests/runtimes/test_gpu.py builds and runs there")


def test_a_bundle_that_needs_no_engine_is_told_so(edgecls: Command, digits: Digits) -> None:
    done = edgecls("build", digits.bundle("raspberry-pi"))
    as_json = json.loads(edgecls("build", digits.bundle("raspberry-pi"), "--json").out)

    assert done.code == 0
    assert done.out == "model.int8.tflite runs on litert as it is: no engine is needed\n"
    assert as_json["outcome"] == "not needed"
    simulated = edgecls("build", digits.bundle("jetson"), "--backend", "onnxruntime")
    assert simulated.out.startswith("model.int8.onnx runs on onnxruntime as it is")


@pytest.mark.parametrize(
    ("target", "names"), [("jetson", ["tensorrt"]), ("desktop-gpu", ["tensorrt-rtx", "tensorrt"])]
)
def test_without_a_gpu_every_reason_is_said(
    edgecls: Command, digits: Digits, target: str, names: list[str]
) -> None:
    done = edgecls("build", digits.bundle(target))

    assert done.code == 3
    assert f"no engine for {target} can be built here" in done.err
    assert all(f"\n  {name}: " in done.err for name in names)


@needs_rtx
@pytest.mark.parametrize("target", ["jetson", "desktop-gpu"])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_an_engine_for_another_gpu(
    edgecls: Command, digits: Digits, tmp_path: Path, target: str, precision: str
) -> None:
    file = tmp_path / "engine"
    done = edgecls("build", digits.bundle(target), "--compute-capability", "8.9", "-o", file,
                   "--precision", precision, "--max-batch", 4, "--opt-batch", 4)  # fmt: skip

    assert done.code == 0, done.err
    assert f"model.{precision}.onnx ({precision}) on tensorrt-rtx" in done.out
    assert "compute capability 8.9" in done.out
    assert f"-> {file}" in done.out
    assert file.stat().st_size > 1000
    assert not done.err, "no line of progress where there is no terminal"


@needs_rtx
def test_the_engine_as_json(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    file = tmp_path / "engine"
    done = edgecls("build", digits.bundle("jetson"), "--compute-capability", "12.0", "-o", file,
                   "--json")  # fmt: skip
    found = json.loads(done.out)

    assert found["outcome"] == "built"
    assert found["size_bytes"] == file.stat().st_size
    assert found["build_s"] > 0
    assert found["path"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--compute-capability", "8.9"], 2, "give -o FILE"),
        (["--compute-capability", "8", "-o", "f"], 2, "e.g. 8.6"),
        (["--compute-capability", "8.9", "-o", "f", "--backend", "tensorrt"], 2, "tensorrt-rtx"),
        (["--compute-capability", "8.9", "-o", "f", "--precision", "fp32"], 2, "found onnx int8"),
        (["--compute-capability", "8.9", "-o", "f", "--implicit-int8"], 2, "--implicit-int8"),
        (["--on", "here", "-o", "f"], 2, "stays on the device"),
        (["--backend", "onnxruntime", "-o", "f"], 2, "there is none to write"),
        (["--backend", "onnxruntime", "--precision", "fp32"], 4, "no onnx in fp32"),
        (["--backend", "onnxruntime", "--implicit-int8"], 2, "none for --implicit-int8"),
        (["--backend", "litert"], 4, "no tflite in int8 for litert"),
        (["--opt-batch", "9"], 2, "max-batch 8"),
        (["--workspace-mb", "0"], 2, "range"),
        (["--workspace-mb", "99999999999999999"], 2, "range"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(
    edgecls: Command, digits: Digits, arguments: list[str], code: int, message: str
) -> None:
    if tensorrt_rtx_available() is None and "--precision" in arguments:
        pytest.skip("TensorRT-RTX is not installed")
    done = edgecls("build", digits.bundle("jetson"), *arguments)

    assert done.code == code
    assert message in done.err
    assert not Path("f").exists()


@pytest.mark.parametrize("command", ["predict", "bench", "verify", "build"])
def test_implicit_int8_is_tensorrts_alone(edgecls: Command, digits: Digits, command: str) -> None:
    images = [next(digits.judged.rglob("*.png"))] if command == "predict" else []
    done = edgecls(command, digits.bundle("jetson"), *images, "--implicit-int8", "--backend",
                   "tensorrt-rtx")  # fmt: skip

    assert done.code == 2
    assert "tensorrt-rtx has no implicit quantization" in done.err


def test_engine_options_change_nothing_elsewhere(edgecls: Command, digits: Digits) -> None:
    done = edgecls("verify", digits.bundle("raspberry-pi"), "--max-batch", 4, "--workspace-mb", 64,
                   "--no-cuda-graph")  # fmt: skip

    assert done.code == 0


def test_options_reach_a_device(edgecls: Command, digits: Digits) -> None:
    """This machine is a device too: what it is told is what a device is told."""
    done = edgecls("build", digits.bundle("raspberry-pi"), "--on", "here", "--max-batch", 4,
                   "--workspace-mb", 64, "--no-cuda-graph", "--precision", "int8")  # fmt: skip
    missing = edgecls("build", digits.bundle("jetson"), "--on", "here", "--implicit-int8",
                      "--backend", "tensorrt-rtx")  # fmt: skip

    assert done.code == 0, done.err
    assert done.out == "model.int8.tflite runs on litert as it is: no engine is needed\n"
    assert missing.code == 2
    assert "no implicit quantization" in missing.err


def test_a_device_says_every_reason_too(edgecls: Command, digits: Digits) -> None:
    done = edgecls("build", digits.bundle("desktop-gpu"), "--on", "here", "--json")
    answer = json.loads(done.out)
    read = edgecls("build", digits.bundle("desktop-gpu"), "--on", "here")

    assert (done.code, answer["exit_code"]) == (3, 3)
    assert "no engine for desktop-gpu can be built here" in answer["error"]
    assert all(f"\n  {name}: " in answer["error"] for name in ("tensorrt-rtx", "tensorrt"))
    assert f"error: {answer['error']}\n" in read.err


def test_a_device_gets_the_options_that_were_changed() -> None:
    engine = EngineOptions(max_batch=16, workspace_mb=64, implicit_int8=True, cuda_graph=False)

    assert predict_options(None, False, None) == []
    assert predict_options("tensorrt", True, 2, engine) == [
        "--backend", "tensorrt", "--allow-fallback", "--threads", "2", "--max-batch", "16",
        "--workspace-mb", "64", "--implicit-int8", "--no-cuda-graph",
    ]  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_a_build_is_a_line_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal() if terminal else io.StringIO()
    progress = TerminalProgress(file=file)
    for done in (0.0, 0.5, 1.0):
        progress.fraction("building", done)
    shown = file.getvalue()
    progress.fraction("building", 1.0)

    assert file.getvalue() == shown, "what is over is not begun again"
    assert bool(shown) == terminal
    if terminal:
        assert "building" in shown
        assert "0%" in shown
        assert shown.index("\x1b[?25l") < shown.index("\x1b[?25h"), "the cursor comes back"


def test_what_must_be_seen_at_once_passes_what_is_kept_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with without_info() as stderr:
        os.write(2, b"INFO: of a library\nlater\n")
        assert stderr is not None
        stderr.write("now\n")

    assert capfd.readouterr().err == "now\nlater\n"
