"""A virtual Pi of this machine, as a device like any other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence

from ...core.errors import DeviceError
from ...core.files import CACHE_VARIABLE
from .address import VirtualTarget
from .transport import OUTPUT_LIMIT_BYTES, Completed, talk


class EmulatedDevice:
    """See ``Device``; it keeps what it is sent in its own root."""

    def __init__(self, target: VirtualTarget) -> None:
        self._pi = target.pi
        cache = target.pi.root / "opt/edgecls/cache"
        self._environment = target.pi.environment({CACHE_VARIABLE: str(cache)})

    async def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: Iterable[bytes] = (),
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:
        """Run the Pi's ``python3`` under QEMU."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(self._pi.launchers / "python3"), *arguments[1:], env=self._environment,
            stdin=pipe, stdout=pipe, stderr=pipe,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            out, err = await talk(process.stdin, process.stdout, process.stderr, stdin, limit_bytes)
            code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if code < 0:
            raise DeviceError(f"python3 was ended there by signal {-code}")
        return Completed(code=code, out=out, err=err)


@contextlib.asynccontextmanager
async def connect_emulated(target: VirtualTarget) -> AsyncIterator[EmulatedDevice]:
    """Yield the device.

    Raises:
        MissingError: QEMU is not installed.
    """
    yield EmulatedDevice(target)
