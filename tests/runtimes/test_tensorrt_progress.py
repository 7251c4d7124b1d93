from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls.core.errors import GraphError
from edgecls.core.progress import Quiet
from edgecls.runtimes.tensorrt_build import build_engine, tensorrt_rtx_available
from edgecls.runtimes.tensorrt_progress import Phases

needs_rtx = pytest.mark.skipif(
    tensorrt_rtx_available() is None, reason="TensorRT-RTX is not installed"
)


class Shown(Quiet):
    """Keeps what it is shown; raises ``error`` when ``after`` fractions were."""

    def __init__(self, error: BaseException | None = None, after: int = 10) -> None:
        self.fractions: list[float] = []
        self.error, self.after = error, after

    def fraction(self, description: str, done: float) -> None:
        assert "tensorrt_rtx" in description
        self.fractions.append(done)
        if self.error is not None and len(self.fractions) == self.after:
            raise self.error


def test_a_phase_is_a_part_of_its_parents_step() -> None:
    phases, found = Phases(), []

    def then(change: object) -> None:
        del change
        found.append(phases.fraction)

    then(phases.start("build", None, 4))
    then(phases.step("build", 0))
    then(phases.start("tactics", "build", 2))
    then(phases.start("timing", "tactics", 5))
    then(phases.step("timing", 0))
    then(phases.step("timing", 3))
    then(phases.finish("timing"))
    then(phases.step("tactics", 0))
    then(phases.finish("tactics"))  # before its last step, as TensorRT may
    then(phases.step("build", 1))
    then(phases.finish("build"))
    then(phases.start("build", None, 2))

    # 1/4 + 1/4 * (1/2 * 1/5) and so on; what ends early does not go back.
    expected = [0, 0.25, 0.25, 0.25, 0.275, 0.35, 0.35, 0.375, 0.375, 0.5, 1, 0]
    assert found == pytest.approx(expected)


TREES = st.recursive(
    st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=20
)


@given(TREES)
def test_the_fraction_rises_to_one(tree: list[object]) -> None:
    """Of any nesting: a list is a phase, its items are its steps, each with a phase within."""
    phases, found = Phases(), [0.0]

    def run(name: str, parent: str | None, steps: list[object], low: float, high: float) -> None:
        phases.start(name, parent, max(1, len(steps)))
        for index, step in enumerate(steps):
            width = (high - low) / len(steps)
            assert isinstance(step, list)
            run(f"{name}.{index}", name, step, low + index * width, low + (index + 1) * width)
            phases.step(name, index)
            found.append(phases.fraction)
            assert found[-1] == pytest.approx(low + (index + 1) * width)
        phases.finish(name)

    run("all", None, list(tree), 0.0, 1.0)

    assert phases.fraction == 1
    assert all(first <= second + 1e-12 for first, second in pairwise(found))


def test_what_was_never_begun_is_no_error() -> None:
    phases = Phases()
    phases.step("nothing", 3)
    phases.finish("nothing")
    phases.start("orphan", "nothing", 0)

    assert phases.fraction == 0


@needs_rtx
def test_a_real_build_is_shown_from_its_begin_to_its_end(onnx_float: bytes) -> None:
    shown = Shown()
    build_engine(onnx_float, api="tensorrt-rtx", progress=shown)
    found = shown.fractions

    assert len(found) > 20
    assert found[0] < 0.2
    assert found[-1] == 1
    assert all(first <= second for first, second in pairwise(found))
    assert sum(value == 1 for value in found) == 1


@needs_rtx
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug")])
def test_what_is_raised_meanwhile_stops_the_build(error: BaseException, onnx_float: bytes) -> None:
    whole, shown = Shown(), Shown(error)
    build_engine(onnx_float, api="tensorrt-rtx", progress=whole)

    with pytest.raises(type(error)):
        build_engine(onnx_float, api="tensorrt-rtx", progress=shown)

    # What TensorRT still reports after it was told to stop is the end of the phases it is in.
    assert len(shown.fractions) < len(whole.fractions) / 2
    assert shown.fractions[-1] == 1, "the line goes"
    assert len(build_engine(onnx_float, api="tensorrt-rtx")) > 1000, "the next build is well"


class Interrupting(Shown):
    """The user's Ctrl-C, in the middle of a build."""

    def fraction(self, description: str, done: float) -> None:
        super().fraction(description, done)
        if len(self.fractions) == self.after:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@needs_rtx
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_the_build(onnx_float: bytes) -> None:
    whole, shown = Shown(), Interrupting()
    before = signal.getsignal(signal.SIGINT)
    build_engine(onnx_float, api="tensorrt-rtx", progress=whole)

    with pytest.raises(KeyboardInterrupt):
        build_engine(onnx_float, api="tensorrt-rtx", progress=shown)

    assert len(shown.fractions) < len(whole.fractions) / 2
    assert signal.getsignal(signal.SIGINT) is before


@needs_rtx
def test_a_thread_that_builds_leaves_signals_alone(onnx_float: bytes) -> None:
    before = signal.getsignal(signal.SIGINT)
    found = []

    class Watching(Shown):
        def fraction(self, description: str, done: float) -> None:
            found.append(signal.getsignal(signal.SIGINT) is before)

    def work() -> None:
        build_engine(onnx_float, api="tensorrt-rtx", progress=Watching())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)

    assert found
    assert all(found)


@needs_rtx
def test_a_graph_that_is_refused_shows_no_line() -> None:
    shown = Shown()

    with pytest.raises(GraphError):
        build_engine(b"hello", api="tensorrt-rtx", progress=shown)

    assert not shown.fractions
