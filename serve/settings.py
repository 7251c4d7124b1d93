"""How a server runs, and how its API key is found."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..core.errors import UsageError

KEY_VARIABLE: Final = "EDGECLS_API_KEY"

# A key that can be guessed protects nothing.
_MIN_KEY_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The limits of a server; every one is checked before an image is decoded.

    Attributes:
        max_batch: The most images that run at once, where the model takes several.
        max_wait_ms: How long an image waits for others that are being decoded.
        queue: The most images of a process that were accepted and not answered yet.
        max_upload_bytes: Of a request's body.
        max_pixels: Of an image, as its header announces them.
        max_images: Of a request.
        timeout_s: For a request's body to arrive, and for its answer from then on.
        decoders: Threads that decode.
        api_key: What a client must send; None lets everyone in.
        local_only: Whether only this machine can connect.
    """

    max_batch: int = 8
    max_wait_ms: float = 5.0
    queue: int = 32
    max_upload_bytes: int = 8 << 20
    max_pixels: int = 25_000_000
    max_images: int = 16
    timeout_s: float = 10.0
    decoders: int = 2
    api_key: str | None = field(default=None, repr=False)
    local_only: bool = False


def shutdown_s(settings: Settings) -> int:
    """Return what a process gets to end; a body and an answer in hand have their own limits."""
    return int(2 * settings.timeout_s) + 1


def find_api_key(file: Path | None) -> str | None:
    """Return the key in ``file``, or else in ``$EDGECLS_API_KEY``; None where there is neither.

    Raises:
        UsageError: It is empty or too short, or no header can carry it.
        OSError: The file cannot be read.
    """
    if file is not None:
        where, key = str(file), file.read_text(encoding="utf-8", errors="replace").strip()
    else:
        found = os.environ.get(KEY_VARIABLE)
        if found is None:
            return None
        where, key = f"${KEY_VARIABLE}", found.strip()
    if len(key) < _MIN_KEY_CHARACTERS or not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(
            f"{where}: expected an API key of {_MIN_KEY_CHARACTERS} or more letters, digits and "
            "signs of ASCII without a space; make one: openssl rand -hex 24"
        )
    return key
