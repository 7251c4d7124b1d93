"""Talks to the edgecls of a connected device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from ...core.errors import (
    BadInputError,
    CheckFailedError,
    DeviceError,
    EdgeclsError,
    UsageError,
)
from ...core.version import VERSION
from . import store
from .address import LocalTarget, Target
from .transport import OUTPUT_LIMIT_BYTES, Completed, Device

# Without the current folder, which may be a checkout, on the path.
_START: Final = (
    "import sys; sys.path[:1] = [] if sys.path[0] == '' else sys.path[:1]; "
    "from edgecls.cli.main import main; main()"
)
_MESSAGE_CHARACTERS: Final = 2000
_ERRORS: Final[dict[int, type[EdgeclsError]]] = {
    1: CheckFailedError,
    2: UsageError,
    3: DeviceError,
    4: BadInputError,
}


@dataclass(slots=True)
class Tally:
    """How far a device is; outlives its connections.

    Attributes:
        stage: What it does now.
        done: Images that are answered.
        total: Images to answer; 0 where there are none.
    """

    stage: str = "connecting"
    done: int = 0
    total: int = 0


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says of itself.

    Attributes:
        cache: Its folder for what it is sent.
        python: The Python that is used.
        version: Of that Python, as "3.13.5".
        edgecls: The version that it has; empty where it has none.
    """

    cache: str
    python: str
    version: str
    edgecls: str


class Session:
    """A connected device, and how far it is.

    Attributes:
        name: As the user called it.
        identity: Of the device, whatever it is called.
        local: Whether it runs on this machine, and this very edgecls.
        device: The connection.
        python: That the user named for it; None where it is to be found out.
        tally: See there.
        note: Takes what the user should know.
    """

    def __init__(
        self, target: Target, device: Device, tally: Tally, note: Callable[[str], None]
    ) -> None:
        self.name = target.name
        self.identity = target.identity
        self.local = isinstance(target, LocalTarget)
        self.device = device
        self.tally = tally
        self.note = note
        python = target.python
        # A login begins at home, and quotes keep a shell from seeing what "~" means.
        self.python = f"./{python[2:]}" if python and python.startswith("~/") else python
        self._about: About | None = None

    async def about(self) -> About:
        """Return what it says of itself, asked once.

        Raises:
            DeviceError: There is no Python.
        """
        if self._about is None:
            own = ["--own"] if self.python else []
            self._about = self.decode(await self.store("about", *own), About)
        return self._about

    async def edgecls(
        self, arguments: Sequence[str], *, codes: Iterable[int] = (0,),
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:  # fmt: skip
        """Run an edgecls command there.

        Args:
            arguments: The command first.
            codes: The exit codes that are no error.
            limit_bytes: Of its output.

        Raises:
            DeviceError: edgecls is not installed there.
            EdgeclsError: It ends with another code; the class is that of its code.
        """
        about = await self.about()
        if not about.edgecls:
            raise DeviceError(
                f"{self.name}: {about.python} (Python {about.version}) has no edgecls; run: "
                f"edgecls device install --on {self.name} WHEEL"
            )
        if about.edgecls != VERSION:
            self.note(f"{self.name} runs edgecls {about.edgecls}, this is {VERSION}")
        done = await self.device.run(
            [about.python, "-c", _START, *arguments], limit_bytes=limit_bytes
        )
        for line in done.err.splitlines():
            if line.startswith("note: "):
                self.note(f"{self.name}: {line.removeprefix('note: ')}")
        if done.code not in codes:
            raise self.failure(done)
        return done

    async def store(
        self, command: str, *arguments: str, stdin: Iterable[bytes] = (),
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> bytes:  # fmt: skip
        """Run a command of store.py there, and return what it prints.

        Raises:
            DeviceError: There is no Python, or the command fails, e.g. for lack of space.
        """
        text = Path(store.__file__).read_text()
        done = await self.device.run(
            [self.python or "python3", "-c", text, command, *arguments], stdin=stdin,
            limit_bytes=limit_bytes,
        )  # fmt: skip
        if done.code == 127:
            python = self.python or "python3"
            raise DeviceError(f"{self.name}: there is no {python}; it needs Python 3.10 or newer")
        if done.code:
            raise DeviceError(f"{self.name}: {last_words(done)}")
        return done.out

    def failure(self, done: Completed) -> EdgeclsError:
        """Return the error that a command's exit code and its last words there mean."""
        kind = _ERRORS.get(done.code, EdgeclsError)
        return kind(f"{self.name}: {last_words(done)}")

    def decode(self, data: bytes, form: Any) -> Any:
        """Read what came from the device as JSON.

        Raises:
            DeviceError: It is something else.
        """
        try:
            return msgspec.json.decode(data, type=form)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DeviceError(
                f"{self.name}: expected its answer as JSON ({error}), found {data[:200]!r}; does "
                "a login there print something of its own?"
            ) from error


def last_words(done: Completed) -> str:
    """Return why a program failed, from the end of what it said; of an error all its lines."""
    lines = [line for line in done.err.splitlines() if line.strip()] or ["it says nothing"]
    said = lines[-1]
    for index, line in enumerate(lines):
        if line.startswith("error: "):
            reasons = itertools.takewhile(lambda other: other.startswith("  "), lines[index + 1 :])
            said = "\n".join([line.removeprefix("error: "), *reasons])
    return f"{said[-_MESSAGE_CHARACTERS:].strip()} (exit code {done.code})"
