"""How far TensorRT is with a build, from the phases within phases that it reports."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..core.progress import Gauge


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Turns nested phases, each of so many steps, into one fraction; it never goes back.

    A phase belongs to the step that its parent is at. Those that have no parent are one after the
    other, each from 0 to 1.
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._furthest = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase, within ``parent`` where that runs."""
        if parent not in self._phases:
            parent, self._furthest = None, 0.0
        self._phases[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, index: int) -> None:
        """End the step ``index``, from 0."""
        if name in self._phases:
            self._phases[name].done = index + 1

    def finish(self, name: str) -> None:
        """End a phase, whether or not all its steps were reported."""
        phase = self._phases.pop(name, None)
        if phase is not None and phase.parent is None:
            self._furthest = 1.0

    @property
    def fraction(self) -> float:
        """How much is done, 0..1."""
        for name, phase in self._phases.items():
            if phase.parent is None:
                self._furthest = max(self._furthest, self._of(name))
        return self._furthest

    def _of(self, name: str) -> float:
        phase = self._phases[name]
        inner = (self._of(one) for one, other in self._phases.items() if other.parent == name)
        return min(1.0, (phase.done + max(inner, default=0.0)) / phase.steps)


def make_monitor(trt: Any, title: str, progress: Gauge) -> Any:
    """Return TensorRT's monitor of a build.

    ``stop`` ends the build at its next step. What is raised while it is told stops it too, and is
    raised by ``close``: an exception must not pass through TensorRT.

    Args:
        trt: The module.
        title: What is built.
        progress: Shows it; called from TensorRT's threads, one at a time.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._raised: BaseException | None = None
            self._stopped = False
            self._phases = Phases()
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._tell(lambda: self._phases.start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(lambda: self._phases.step(phase_name, step))
            return self._raised is None and not self._stopped

        def phase_finish(self, phase_name: str) -> None:
            self._tell(lambda: self._phases.finish(phase_name))

        def _tell(self, change: Callable[[], None]) -> None:
            try:
                with self._lock:
                    change()
                    # 1 is said once, by close.
                    progress.fraction(title, min(self._phases.fraction, 0.999))
            except BaseException as error:
                self._raised = error

        def stop(self) -> None:
            self._stopped = True

        def close(self) -> None:
            progress.fraction(title, 1.0)
            if self._raised is not None:
                raise self._raised

    return Monitor()


@contextlib.contextmanager
def interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """Let a Ctrl-C call ``stop``, and act when the block ends.

    Python would raise it in whatever TensorRT calls just then, mostly the logger, where the
    bindings swallow it. Signals are the main thread's: elsewhere nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    came = []

    def note(number: int, frame: object) -> None:
        del frame
        came.append(number)
        stop()

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
