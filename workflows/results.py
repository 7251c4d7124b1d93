"""A shard's result, or the error in its place, on the way from one process to another: JSON."""

from __future__ import annotations

import traceback
from typing import Final

import msgspec

from ..core.errors import (
    BadInputError,
    CheckFailedError,
    EdgeclsError,
    MissingError,
    UsageError,
)
from ..core.stderr import without_info
from ..core.text import as_utf8
from ..drift.partial import Partial
from .shards import Job, Shard, Worker

_KINDS: Final = (CheckFailedError, UsageError, MissingError, BadInputError)


class _Done(msgspec.Struct, frozen=True, tag=True):
    partial: msgspec.Raw


class _Failed(msgspec.Struct, frozen=True, tag=True):
    exit_code: int
    text: str


class RemoteWorker:
    """A worker in a process of its own, which takes and gives bytes and never raises.

    Args:
        job: As JSON.
    """

    def __init__(self, job: bytes) -> None:
        self._worker: Worker | None = None
        self._error: Exception | None = None
        try:
            with without_info():
                self._worker = Worker.open(msgspec.json.decode(job, type=Job))
        except Exception as error:  # told in answer to the first shard
            self._error = error

    def __call__(self, shard: bytes) -> bytes:
        """Return what ``read_result`` takes, for a shard as JSON."""
        if self._worker is None:
            assert self._error is not None
            return _failed(self._error)
        try:
            partial = self._worker(msgspec.json.decode(shard, type=Shard))
        except Exception as error:
            return _failed(error)
        return msgspec.json.encode(_Done(msgspec.Raw(partial.to_json())))


def read_result(data: bytes) -> Partial:
    """Return what a worker found.

    Raises:
        EdgeclsError: The worker's error, of the same exit code.
        RuntimeError: A bug of ours, with the worker's traceback.
    """
    found = msgspec.json.decode(data, type=_Done | _Failed)
    if isinstance(found, _Done):
        return Partial.from_json(bytes(found.partial))
    for kind in _KINDS:
        if kind.exit_code == found.exit_code:
            raise kind(found.text)
    raise RuntimeError(f"in a worker: {found.text}")


def _failed(error: Exception) -> bytes:
    if isinstance(error, EdgeclsError):
        return msgspec.json.encode(_Failed(error.exit_code, as_utf8(str(error))))
    # As the command line has it: a file that cannot be read is bad input, not a bug.
    code = BadInputError.exit_code if isinstance(error, OSError) else EdgeclsError.exit_code
    text = str(error) if isinstance(error, OSError) else "".join(traceback.format_exception(error))
    return msgspec.json.encode(_Failed(code, as_utf8(text)))
