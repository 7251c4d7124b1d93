"""Our own messages on a terminal, and the text of others in them."""

from __future__ import annotations

from ..core.text import printable

__all__ = ["printable", "printable_lines"]


def printable_lines(text: str) -> str:
    """Return one of our own messages: as ``printable``, but for newlines before two spaces."""
    return "\n  ".join(map(printable, text.split("\n  ")))
