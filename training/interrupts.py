"""Ctrl-C and a termination request wait until the running step is done."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# torchrun passes on a Ctrl-C that its processes have had from the terminal already.
_SAME_S: Final = 1.0


class Interrupt:
    """Whether someone has asked the training to stop."""

    requested = False
    at_s = 0.0


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Interrupt]:
    """Note the first Ctrl-C or SIGTERM instead of raising; a Ctrl-C later on stops at once.

    Outside the main thread signals cannot be caught: nothing is deferred.
    """
    interrupt = Interrupt()

    def request(number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        again = interrupt.requested and now - interrupt.at_s > _SAME_S
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not interrupt.requested:
            interrupt.requested, interrupt.at_s = True, now

    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.signal(number, request) for number in _SIGNALS}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
