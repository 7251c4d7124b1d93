"""A Raspberry Pi that runs here: its Debian, its Python and its instruction set, emulated."""

from .boards import BOARDS, RELEASES, Board, Release
from .create import create
from .machine import VirtualPi, created

__all__ = [
    "BOARDS",
    "RELEASES",
    "Board",
    "Release",
    "VirtualPi",
    "create",
    "created",
]
