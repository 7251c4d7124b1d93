"""Text that came from file names and files, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text with its control characters, but for newlines before two spaces, escaped.

    A file's name may hold a newline or an escape sequence: neither may look like our output.
    """
    lines = text.split("\n  ")
    return "\n  ".join("".join(map(_escaped, line)) for line in lines)


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
