"""Text that came from file names and files, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text with its control characters escaped.

    A file's name may hold a newline or an escape sequence: neither may look like our output.
    """
    return "".join(map(_escaped, text))


def printable_lines(text: str) -> str:
    """Return one of our own messages: as ``printable``, but for newlines before two spaces."""
    return "\n  ".join(map(printable, text.split("\n  ")))


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
