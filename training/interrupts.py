"""Ctrl-C and a termination request wait until the running step is done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether someone has asked the training to stop."""

    requested = False


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Interrupt]:
    """Note the first Ctrl-C or SIGTERM instead of raising; a second one stops at once.

    Outside the main thread signals cannot be caught: nothing is deferred.
    """
    interrupt = Interrupt()

    def request(number: int, frame: FrameType | None) -> None:
        del number, frame
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True

    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.signal(number, request) for number in _SIGNALS}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
