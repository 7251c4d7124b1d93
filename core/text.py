"""Text that came from file names and files, made fit to be shown."""

from __future__ import annotations

import os


def printable(text: str) -> str:
    """Return text with its control characters escaped.

    A file's name may hold a newline or an escape sequence: neither may look like our output.
    """
    return "".join(map(_escaped, text))


def as_utf8(text: str) -> str:
    """Return text that UTF-8 can hold: bytes of a name that were no text are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def name_as_utf8(name: str) -> str:
    """Return a file's name with its bytes that are no text escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
