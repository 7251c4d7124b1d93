"""The one thing that a connection to a device must be able to do: run a program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ...core.errors import DeviceError

OUTPUT_LIMIT_BYTES: Final = 16 << 20
_ERRORS_KEPT_BYTES: Final = 64 << 10
_BLOCK: Final = 64 << 10


class LostError(Exception):
    """The connection broke; what ran there may or may not have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a program there left: its exit code, its output, the end of what it said on stderr."""

    code: int
    out: bytes
    err: str


class Device(Protocol):
    """A device that is connected. Files go through programs' stdin and stdout: see store.py."""

    async def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: Iterable[bytes] = (),
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:
        """Run a program.

        Args:
            arguments: The program and its arguments, passed on as they are.
            stdin: What it reads.
            limit_bytes: Of its output.

        Raises:
            LostError: The connection broke.
            DeviceError: It prints more than the limit, or it was killed.
        """
        ...


class Reader(Protocol):
    """A stream from a program."""

    async def read(self, n: int, /) -> bytes:
        """Return up to n bytes; none at the end."""
        ...


class Writer(Protocol):
    """A stream to a program."""

    def write(self, data: bytes, /) -> None:
        """Take bytes."""
        ...

    async def drain(self) -> None:
        """Wait until more can be taken."""
        ...

    def write_eof(self) -> None:
        """Say that nothing follows."""
        ...


async def talk(
    stdin: Writer, stdout: Reader, stderr: Reader, data: Iterable[bytes], limit_bytes: int
) -> tuple[bytes, str]:
    """Feed a program and read both its outputs at once, so that neither side waits for ever.

    Raises:
        DeviceError: It prints more than the limit.
    """

    async def feed() -> None:
        # A program that ends early says why by its exit code.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for block in data:
                stdin.write(block)
                await stdin.drain()
            stdin.write_eof()

    async def read() -> bytes:
        found = bytearray()
        while block := await stdout.read(_BLOCK):
            found += block
            if len(found) > limit_bytes:
                raise DeviceError(f"a program there printed more than {limit_bytes} bytes")
        return bytes(found)

    async def listen() -> str:
        found = b""
        while block := await stderr.read(_BLOCK):
            found = (found + block)[-_ERRORS_KEPT_BYTES:]
        return found.decode("utf-8", "replace")

    _, out, err = await asyncio.gather(feed(), read(), listen())
    return out, err
