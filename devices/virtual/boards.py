"""The boards, and the releases of their system.

Raspberry Pi OS (64-bit) is Debian's arm64 with a kernel and firmware of its own: python3, libc and
libstdc++ are Debian's packages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_CPU_INFO: Final = """\
processor\t: {index}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: {variant}
CPU part\t: {part}
CPU revision\t: {revision}

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A Raspberry Pi.

    Attributes:
        name: As it is asked for.
        title: For people.
        cpu: QEMU's name of its core. QEMU 7.2's default core computes wrong int8 results.
        part, variant, revision, features: Of /proc/cpuinfo, which LiteRT reads.
    """

    name: str
    title: str
    cpu: str
    part: str
    variant: str
    revision: int
    features: str

    def cpu_info(self) -> str:
        """Return the board's /proc/cpuinfo: four cores."""
        tail = f"Revision\t: c03111\nModel\t\t: {self.title}\n"
        cores = [
            _CPU_INFO.format(
                index=index, features=self.features, variant=self.variant, part=self.part,
                revision=self.revision,
            )
            for index in range(4)
        ]  # fmt: skip
        return "".join(cores) + tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release of the system.

    Attributes:
        name: Debian's code name.
        python: Its Python, as "3.13".
        glibc: Its C library, as (2, 41): which wheels it takes.
    """

    name: str
    python: str
    glibc: tuple[int, int]


BOARDS: Final = {
    board.name: board
    for board in (
        Board(
            name="pi4",
            title="Raspberry Pi 4 Model B Rev 1.1",
            cpu="cortex-a72",
            part="0xd08",
            variant="0x0",
            revision=3,
            features="fp asimd evtstrm crc32 cpuid",
        ),
        Board(
            name="pi5",
            title="Raspberry Pi 5 Model B Rev 1.0",
            cpu="cortex-a76",
            part="0xd0b",
            variant="0x4",
            revision=1,
            features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid "
            "asimdrdm lrcpc dcpop asimddp",
        ),
    )
}

RELEASES: Final = {
    release.name: release
    for release in (
        Release(name="trixie", python="3.13", glibc=(2, 41)),
        Release(name="bookworm", python="3.11", glibc=(2, 36)),
    )
}
