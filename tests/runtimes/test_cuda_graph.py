"""Recording work on a stream, against the real cuda-bindings; what a GPU does is not tested here.

That replayed batches answer as the others do stands in test_tensorrt.py, with its stand-in.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

import edgecls.runtimes
from edgecls.core.errors import MissingError
from edgecls.runtimes import cuda
from edgecls.runtimes.cuda_graph import CudaGraph

RUNTIMES = Path(edgecls.runtimes.__file__).parent


@pytest.fixture
def bindings() -> Any:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    return importlib.import_module("cuda.bindings.runtime")


def used(file: Path) -> set[str]:
    """Return what a module takes from CUDA's runtime, also of its enums."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            for start in ("api.", "cuda.runtime_api()."):
                if text.startswith(start + "cuda"):
                    found.add(text.removeprefix(start))
        # The direction of a copy is given by its name.
        if isinstance(node, ast.Constant) and str(node.value).startswith("cudaMemcpy"):
            found.add(f"cudaMemcpyKind.{node.value}")
    return found


def test_the_bindings_have_all_that_is_used(bindings: Any) -> None:
    names = {name for file in RUNTIMES.glob("*.py") for name in used(file)}

    assert {"cudaGraphLaunch", "cudaStreamEndCapture", "cudaMallocHost",
            "cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal",
            "cudaMemcpyKind.cudaMemcpyHostToDevice"} <= names  # fmt: skip
    for name in names:
        owner: Any = bindings
        for part in name.split("."):
            assert hasattr(owner, part), name
            owner = getattr(owner, part)


def test_without_a_driver_the_work_runs_as_it_is(bindings: Any) -> None:
    try:
        cuda.current_device()
    except MissingError:
        pass
    else:
        pytest.skip("there is a GPU")
    graph, ran = CudaGraph(bindings.cudaStream_t(0)), []

    for _ in range(4):
        graph.run(1, lambda: ran.append(1))

    assert len(ran) == 4
    assert not graph.recorded
    assert graph.refused is not None
    assert "error 35" in graph.refused
    graph.free()


def test_work_that_failed_is_not_recorded_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had to initialise may still be missing, and cannot be recorded."""
    graph, ran = CudaGraph(None), []
    monkeypatch.setattr(graph, "_record", lambda enqueue: ran.append("recorded"))

    with pytest.raises(ZeroDivisionError):
        graph.run(1, lambda: ran.append(1 // 0))
    graph.run(1, lambda: ran.append("as it is"))

    assert ran == ["as it is"]
