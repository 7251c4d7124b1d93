"""Sends files to a device: what it has already, by its hash, is not sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ...bundle import Bundle
from ...core.errors import BadInputError
from ...core.files import sha256_bytes, sha256_file
from .session import Session

_BLOCK: Final = 256 << 10

# Names per question, so that its answer is of bounded size.
_ASKED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A file for a device.

    Attributes:
        name: Its path in the device's cache, e.g. "images/<sha256>.jpg".
        sha256: Of its content.
        size_bytes: Of its content.
        read: Gives its content.
    """

    name: str
    sha256: str
    size_bytes: int
    read: Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of this machine that devices are asked about.

    Attributes:
        name: What the user calls it; it stays here.
        path: Where it is.
        sha256: Of the file.
        size_bytes: Of the file.
    """

    name: str
    path: Path
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, name: str, path: Path) -> Image:
        """Read a file's hash.

        Raises:
            OSError: It cannot be read.
        """
        if path.exists() and not path.is_file():
            raise IsADirectoryError(21, "not a file", str(path))
        return cls(name=name, path=path, sha256=sha256_file(path), size_bytes=path.stat().st_size)

    @property
    def sent(self) -> Sent:
        """The file as it is sent: called by its hash, so that no name of here goes there."""
        suffix = self.path.suffix.lower()
        if not (suffix[1:].isascii() and suffix[1:].isalnum()):
            suffix = ""
        return Sent(
            name=f"images/{self.sha256}{suffix}", sha256=self.sha256, size_bytes=self.size_bytes,
            read=lambda: _blocks(self.path),
        )  # fmt: skip


async def lacking(session: Session, files: Sequence[Sent]) -> set[str]:
    """Return the names of the files that a device does not have, by their content."""
    absent: set[str] = set()
    for start in range(0, len(files), _ASKED):
        wanted = [[file.name, file.sha256] for file in files[start : start + _ASKED]]
        found = await session.store("missing", stdin=[msgspec.json.encode(wanted)])
        absent.update(session.decode(found, list[str]))
    return absent


async def send(session: Session, files: Sequence[Sent]) -> None:
    """Send files.

    Raises:
        BadInputError: A file changed on the way.
        DeviceError: The device cannot keep them.
        LostError: The connection broke; what has arrived stays.
    """
    if files:
        size = sum(file.size_bytes for file in files)
        session.tally.stage = f"sending {size / 1e6:.1f} MB"
        await session.store("receive", stdin=_frames(files))


async def push(session: Session, files: Sequence[Sent]) -> None:
    """Send what the device lacks; raises as ``send``."""
    absent = await lacking(session, files)
    await send(session, [file for file in files if file.name in absent])


async def push_bundle(session: Session, bundle: Bundle) -> str:
    """Send a bundle's files; return the folder there.

    Raises:
        BundleError: A file of it is damaged here.
        DeviceError: The device cannot keep them.
        LostError: The connection broke; what has arrived stays.
    """
    folder = f"bundles/{bundle.sha256}"
    files = [
        Sent(
            name=f"{folder}/{name}", sha256=entry.sha256, size_bytes=entry.size_bytes,
            read=lambda name=name: [bundle.read(name)],  # type: ignore[misc]
        )
        for name, entry in bundle.manifest.files.items()
    ]  # fmt: skip
    files += [
        Sent(
            name=f"{folder}/{name}", sha256=sha256_bytes(data), size_bytes=len(data),
            read=lambda data=data: [data],  # type: ignore[misc]
        )
        for name, data in bundle.unlisted().items()
    ]  # fmt: skip
    session.tally.stage = "comparing the bundle"
    await push(session, files)
    return f"{(await session.about()).cache}/{folder}"


def _frames(files: Sequence[Sent]) -> Iterator[bytes]:
    for file in files:
        yield msgspec.json.encode([file.name, file.sha256, file.size_bytes]) + b"\n"
        left = file.size_bytes
        for block in file.read():
            left -= len(block)
            if left < 0:
                break
            yield block
        if left:
            raise BadInputError(f"{file.name} changed while it was sent; run it again")


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
