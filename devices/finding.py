"""What the doctor says of one thing."""

from __future__ import annotations

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        name: What.
        state: "ok" works, "missing" does not and could, "info" is neither.
        detail: What was found.
        fix: What to do; empty where nothing is to be done.
    """

    name: str
    state: Literal["ok", "missing", "info"]
    detail: str
    fix: str = ""
