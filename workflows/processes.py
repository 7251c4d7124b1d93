"""Shards in worker processes of this machine."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

import msgspec

from ..core.errors import MissingError
from ..drift.partial import Partial
from .results import RemoteWorker, read_result
from .shards import Job, Shard

TRIES: Final = 3
"""How many workers may die at a shard before it is given up."""

_ENDS_IN_S: Final = 5.0


@dataclass(slots=True)
class _Member:
    """A worker process and the shard that it is at."""

    process: BaseProcess
    connection: Connection
    shard: Shard

    def send(self, shard: Shard) -> None:
        """Give it a shard; that it died meanwhile is noticed where its answer is awaited."""
        self.shard = shard
        with contextlib.suppress(OSError):
            self.connection.send_bytes(msgspec.json.encode(shard))

    def end(self) -> None:
        """End it: at the end of its work by itself, else by force."""
        self.connection.close()
        self.process.join(_ENDS_IN_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def run_processes(
    job: Job, shards: Iterable[Shard], workers: int
) -> Generator[tuple[int, Partial], None, None]:
    """Yield each shard's index and partial result, in the order in which they are ready.

    Processes are spawned, not forked: a fork takes along the locks that other threads hold. One
    that dies is replaced and its shard done again. Closing the generator ends them.

    Raises:
        EdgeclsError: A worker's.
        MissingError: ``TRIES`` workers died at the same shard.
    """
    description, waiting, deaths = msgspec.json.encode(job), iter(shards), Counter[int]()
    crew: list[_Member] = []
    try:
        crew += [_start(description, shard) for shard in itertools.islice(waiting, workers)]
        while crew:
            ready = wait([member.connection for member in crew])
            for member in [member for member in crew if member.connection in ready]:
                done = member.shard
                try:
                    data = member.connection.recv_bytes()
                except (EOFError, OSError):
                    crew.remove(member)
                    member.end()
                    deaths[done.index] += 1
                    if deaths[done.index] == TRIES:
                        raise _given_up(member) from None
                    crew.append(_start(description, done))
                    continue
                shard = next(waiting, None)
                if shard is None:
                    crew.remove(member)
                    member.end()
                else:
                    member.send(shard)
                yield done.index, read_result(data)
    finally:
        for member in crew:
            member.process.terminate()
            member.end()


def _start(job: bytes, shard: Shard) -> _Member:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, job), name="edgecls-worker", daemon=True)
    process.start()
    theirs.close()  # else its end would not be noticed
    member = _Member(process, ours, shard)
    member.send(shard)
    return member


def _serve(connection: Connection, job: bytes) -> None:
    # Ctrl-C reaches the whole group of processes; the one that began it ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = RemoteWorker(job)
    with contextlib.suppress(EOFError, OSError):  # the other process has no more, or is gone
        while True:
            connection.send_bytes(worker(connection.recv_bytes()))


def _given_up(member: _Member) -> MissingError:
    code, names = member.process.exitcode or 0, member.shard.names
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return MissingError(
        f"{TRIES} workers died at the images {names[0]!r} to {names[-1]!r}, the last one "
        f"{how}; SIGKILL is mostly the system's, for want of memory: give fewer --workers; "
        "another signal is a crash: leave these images out"
    )
