"""The processes of a server: this one listens and watches, its workers answer on its port."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Final

from ..core.errors import EdgeclsError, UsageError
from ..core.text import printable
from .counts import Counts
from .settings import Settings, shutdown_s

if TYPE_CHECKING:
    from .model import Open

_LOG: Final = logging.getLogger("edgecls.serve")
# A forked process shares the port and the counts. The one that forks loads no runtime and starts no
# thread; numpy's BLAS has some, which are prepared for it, but Python 3.12 warns of any.
_FORK: Final = multiprocessing.get_context("fork")
_BACKLOG: Final = 1024
_AGAIN_S: Final = 1.0
_HANGS_S: Final = 5.0  # after its time
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        UsageError: The address is none of this machine's, or is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # With the protocol named: asyncio sends small answers at once on such sockets only, and on
        # others each would wait 40 ms for the client's acknowledgement.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, port))
            found.listen(_BACKLOG)
        except BaseException:
            found.close()
            raise
    except (OSError, UnicodeError) as error:  # no name can be as long as some
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot listen on {host} port {port}: {reason}; give another --host or --port"
        ) from error
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to a host."""
    found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    return all(str(address).startswith("127.") or address == "::1" for address in found)


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    bundle: int  # which of the bundles that proved good so far it is to run
    ready: bool = False


class Supervisor:
    """Starts the processes, hands signals on, and starts again what a fault ended.

    SIGTERM and SIGINT end the server when what was accepted is answered. SIGHUP lets the bundle be
    opened afresh: by a process of its own first, which a damaged model may crash, and where that
    proves it good, by every worker, each of which proves it again.
    """

    def __init__(
        self,
        opened: Open,
        settings: Settings,
        listener: socket.socket,
        workers: int,
        on_ready: Callable[[], None],
    ) -> None:
        self._opened = opened
        self._settings = settings
        self._listener = listener
        self._counts = Counts(workers)
        self._on_ready = on_ready
        self._workers: dict[int, _Worker] = {}
        self._check: BaseProcess | None = None
        self._again = False
        self._good = 0
        self._kill_at = math.inf
        self._announced = False
        self._stopping = False
        self._code = 0
        # Workers write their number here when they answer.
        self._ready_in, self._ready_out = os.pipe()
        # Nothing is ever written here: its end tells workers that this process is gone.
        self._alive_in, self._alive_out = os.pipe()

    def run(self) -> int:
        """Serve until a signal ends it.

        Returns:
            The exit code: 0, or that of a process that could not start.
        """
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        signal.set_wakeup_fd(wake)
        try:
            for number in range(self._counts.workers):
                self._start(number)
            while self._workers:
                watched: list[Any] = [w.process.sentinel for w in self._workers.values()]
                if self._check is not None:
                    watched.append(self._check.sentinel)
                left = None if math.isinf(self._kill_at) else self._kill_at - time.monotonic()
                found = connection.wait([woken, self._ready_in, *watched], left)
                if woken in found:
                    self._signals(os.read(woken, 256))
                if self._ready_in in found:
                    self._readied(os.read(self._ready_in, 1)[0])
                self._bury()
                self._judge()
                if time.monotonic() > self._kill_at:
                    self._kill()
            return self._code
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for end in (woken, wake, self._ready_in, self._ready_out, self._alive_in):
                os.close(end)
            os.close(self._alive_out)
            self._listener.close()

    def _start(self, number: int) -> None:
        self._workers[number] = _Worker(_fork(self._work, number), self._good)

    def _work(self, number: int) -> None:
        """Be a worker."""
        _forget_signals()
        os.close(self._alive_out)
        self._counts.start(number)

        def ready() -> None:
            os.write(self._ready_out, bytes([number]))

        def work() -> int:
            from .worker import serve

            return serve(
                self._opened, self._settings, self._counts, self._listener, ready, self._alive_in
            )

        sys.exit(_or_say_why(work))

    def _signals(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop(0)
        elif signal.SIGHUP in numbers and not self._stopping:
            # One that comes while a bundle is being read may mean a newer one.
            self._again = self._check is not None
            self._check = self._check or _fork(self._try)

    def _try(self) -> None:
        """Open the bundle as a worker would, and end."""
        _forget_signals()

        def opened() -> int:
            from .model import open_model

            open_model(self._opened).release()
            return 0

        sys.exit(_or_say_why(opened))

    def _judge(self) -> None:
        if self._check is None or self._check.is_alive():
            return
        code, self._check = self._check.exitcode, None
        if self._stopping:
            return
        if self._again:
            self._again, self._check = False, _fork(self._try)
            return
        if code:
            self._counts.add("reloads", at=1)
            _LOG.error("the new bundle was refused (%s), the old one goes on", _how(code))
            return
        self._good += 1
        self._renew()

    def _renew(self) -> None:
        """Have each worker open the bundle that proved good; one that starts, when it is ready."""
        for worker in self._workers.values():
            if worker.ready and worker.bundle != self._good and worker.process.pid is not None:
                worker.bundle = self._good
                os.kill(worker.process.pid, signal.SIGHUP)

    def _readied(self, number: int) -> None:
        worker = self._workers.get(number)
        if worker is None:  # it ended since
            return
        worker.ready = True
        self._renew()
        if not self._announced and all(worker.ready for worker in self._workers.values()):
            self._announced = True
            self._on_ready()

    def _bury(self) -> None:
        for number, worker in list(self._workers.items()):
            if worker.process.is_alive():
                continue
            worker.process.join()
            code = worker.process.exitcode or 0
            del self._workers[number]
            if self._stopping:
                continue
            others = any(other.ready for other in self._workers.values())
            if not worker.ready and not others:
                self._stop(code if code > 0 else 70)
                continue
            _LOG.error("a process ended (%s), another takes its place", _how(code))
            time.sleep(_AGAIN_S)  # whatever ended it shall not fill a log
            self._start(number)

    def _stop(self, code: int) -> None:
        if not self._stopping:
            self._kill_at = time.monotonic() + shutdown_s(self._settings) + _HANGS_S
        self._stopping = True
        self._listener.close()  # what is not accepted yet is refused, not left waiting
        self._code = self._code or code
        for worker in self._workers.values():
            worker.process.terminate()

    def _kill(self) -> None:
        """End what does not end: a model or a driver that hangs."""
        _LOG.error("a process did not end in time and was killed")
        self._kill_at = math.inf
        self._code = self._code or 70
        for worker in self._workers.values():
            worker.process.kill()


def _fork(target: Callable[..., None], *arguments: int) -> BaseProcess:
    process = _FORK.Process(target=target, args=arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
    return process


def _forget_signals() -> None:
    """Undo what a fork took over; the parent says when to end, also where a terminal does."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _or_say_why(work: Callable[[], int]) -> int:
    """Return the exit code of what a process does, with the reason on stderr where it fails."""
    try:
        return work()
    except EdgeclsError as error:
        code, text = error.exit_code, str(error)
    except OSError as error:
        code, text = 4, str(error)
    except MemoryError:
        code, text = 3, "not enough memory on this machine"
    except Exception as error:
        _LOG.exception("a server's process failed")
        code, text = 70, f"a bug in edgecls: {type(error).__name__}: {error}"
    shown = "\n  ".join(map(printable, text.split("\n  ")))
    print(f"error: {shown}", file=sys.stderr, flush=True)
    return code


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
