"""Work on a CUDA stream, recorded once and replayed: one launch in the place of each kernel's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.errors import BackendUnavailableError
from . import cuda


class CudaGraph:
    """Runs the same work again and again; from the second time on, as a graph.

    The first time the work runs as it is: lazy initialisation cannot be recorded. Then it is
    recorded, and replayed for as long as it is the same work on the same memory. Where recording
    fails, the work runs as it is from then on, and ``refused`` says why.

    Attributes:
        refused: Why nothing is recorded; None where nothing has failed.
    """

    def __init__(self, stream: Any) -> None:
        self.refused: str | None = None
        self._stream = stream
        self._work: object = None
        self._graph: Any = None

    @property
    def recorded(self) -> bool:
        """Whether there is a graph of the last work."""
        return self._graph is not None

    def run(self, work: object, enqueue: Callable[[], None]) -> None:
        """Put work on the stream.

        Args:
            work: Equal for the same work, e.g. the number of images.
            enqueue: Puts it there, without waiting for it and without making memory.

        Raises:
            BackendUnavailableError: It cannot be done, recorded or not.
        """
        if work != self._work:
            self.free()
            enqueue()
            self._work = work
            return
        if self._graph is None and self.refused is None:
            self._record(enqueue)
        if self._graph is None:
            enqueue()
        else:
            cuda.call(cuda.runtime_api().cudaGraphLaunch, self._graph, self._stream)

    def free(self) -> None:
        """Forget what was recorded."""
        self._work = None
        if self._graph is not None:
            graph, self._graph = self._graph, None
            cuda.call(cuda.runtime_api().cudaGraphExecDestroy, graph)

    def _record(self, enqueue: Callable[[], None]) -> None:
        api = cuda.runtime_api()
        # Of this thread alone: what others ask of CUDA meanwhile is allowed.
        mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            cuda.call(api.cudaStreamBeginCapture, self._stream, mode)
            try:
                enqueue()
            finally:
                # Also where it failed: until then the stream takes nothing else.
                captured = cuda.call(api.cudaStreamEndCapture, self._stream)
            try:
                self._graph = cuda.call(api.cudaGraphInstantiate, captured, 0)
            finally:
                cuda.call(api.cudaGraphDestroy, captured)
        except BackendUnavailableError as error:
            self.refused = str(error)
