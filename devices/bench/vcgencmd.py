"""What a Raspberry Pi's firmware tells: it lowers the clock itself, and Linux does not see it.

Source: https://www.raspberrypi.com/documentation/computers/os.html#vcgencmd
"""

from __future__ import annotations

import re
import subprocess
from typing import Final

from .reading import Reading

# Bit n is "now", bit n + 16 "since the start".
_BITS: Final = {
    0: "under-voltage",
    1: "ARM frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}


class VcGenCmd:
    """The firmware's throttling flags, and the clock that the cores really have."""

    def __init__(self, program: str) -> None:
        """Remember the program.

        Args:
            program: ``vcgencmd``'s path.
        """
        self._program = program

    def read(self) -> Reading:
        """Return what it tells now."""
        flags = self._ask("throttled=0x([0-9a-fA-F]+)", "get_throttled")
        clock = self._ask(r"frequency\(\d+\)=(\d+)", "measure_clock", "arm")
        bits = int(flags, 16) if flags else 0
        return Reading(
            clocks_mhz={"arm": int(clock) / 1e6} if clock else {},
            throttled={name: bool(bits >> bit & 1) for bit, name in _BITS.items()} if flags else {},
            events={name: bits >> (bit + 16) & 1 for bit, name in _BITS.items()} if flags else {},
        )

    def _ask(self, answer: str, *arguments: str) -> str:
        try:
            done = subprocess.run(
                [self._program, *arguments], capture_output=True, text=True, timeout=5, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        found = re.search(answer, done.stdout)
        return found[1] if found else ""
