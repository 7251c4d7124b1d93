"""Which Raspberry Pi OS has which Python, and which LiteRT there is for it."""

from __future__ import annotations

from typing import Final

import msgspec


class PiOs(msgspec.Struct, frozen=True, kw_only=True):
    """A release of Raspberry Pi OS.

    Attributes:
        codename: Debian's, as in ``/etc/os-release``.
        debian: Debian's version.
        bits: Of its programs: 32 or 64.
        python: (major, minor) of the system's Python.
        runtime: What runs TFLite files there; empty where we do not run.
        sources: Where this stands.
    """

    codename: str
    debian: int
    bits: int
    python: tuple[int, int]
    runtime: str
    sources: tuple[str, ...]


_LITERT: Final = "https://pypi.org/project/ai-edge-litert/"
_TFLITE: Final = "https://pypi.org/project/tflite-runtime/"

PI_OS: Final = (
    PiOs(
        codename="bullseye", debian=11, bits=64, python=(3, 9), runtime="",
        sources=("https://packages.debian.org/bullseye/python3", _LITERT),
    ),
    PiOs(
        codename="bookworm", debian=12, bits=32, python=(3, 11), runtime="tflite-runtime 2.14",
        sources=("https://packages.debian.org/bookworm/python3", _TFLITE),
    ),
    PiOs(
        codename="bookworm", debian=12, bits=64, python=(3, 11), runtime="ai-edge-litert 2.3",
        sources=("https://packages.debian.org/bookworm/python3", _LITERT),
    ),
    PiOs(
        codename="trixie", debian=13, bits=64, python=(3, 13), runtime="ai-edge-litert 2.3",
        sources=("https://packages.debian.org/trixie/python3", _LITERT),
    ),
)  # fmt: skip


def pi_os_of(codename: str, bits: int) -> PiOs | None:
    """Return the release of that name and width, if it is in the table."""
    return next((row for row in PI_OS if (row.codename, row.bits) == (codename, bits)), None)
