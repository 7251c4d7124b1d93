"""A process of this machine as a device like any other: a virtual Pi, or this very Python."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

from ...core.errors import DeviceError
from .address import LocalTarget
from .transport import OUTPUT_LIMIT_BYTES, Completed, talk


class LocalDevice:
    """See ``Device``.

    Raises:
        MissingError: What runs it is not installed.
    """

    def __init__(self, target: LocalTarget) -> None:
        self._program = str(target.program)
        self._environment = dict(target.environment())

    async def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: Iterable[bytes] = (),
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:
        """Run the target's Python, whatever the first argument calls it."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            self._program, *arguments[1:], env=self._environment,
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
