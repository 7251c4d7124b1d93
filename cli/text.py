"""Our own messages on a terminal, the text of others in them, and JSON."""

from __future__ import annotations

from typing import Any

import click

from ..core.text import printable

__all__ = ["print_json", "printable", "printable_lines"]


def printable_lines(text: str) -> str:
    """Return one of our own messages: as ``printable``, but for newlines before two spaces."""
    return "\n  ".join(map(printable, text.split("\n  ")))


def print_json(document: object) -> None:
    """Print builtins, structs and dataclasses as JSON on stdout; what is no number is null."""
    import msgspec

    encoded = msgspec.json.encode(document, enc_hook=_builtin)
    click.echo(msgspec.json.format(encoded, indent=2))


def _builtin(value: object) -> Any:
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"no JSON for {type(value).__name__}")
