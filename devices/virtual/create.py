"""Makes a virtual Pi: Debian's packages for arm64, unpacked, and wheels from the package index."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from ...core.errors import UsageError
from ...core.files import atomic_directory, cache_folder
from ...core.progress import Progress
from .boards import BOARDS, RELEASES, Board, Release
from .debian import Archive, default_mirror, run
from .machine import SITE, Record, VirtualPi, check_qemu, furnish

PACKAGES: Final = ("ca-certificates", "coreutils", "dash", "libstdc++6", "python3", "python3-venv")

# Changes when a root is furnished in another way: devices that are there are then made anew.
LAYOUT: Final = "2"

# What a Raspberry Pi bundle needs of the package index: the package's own list and its backend.
BACKEND: Final = "ai-edge-litert"

T = TypeVar("T")


def create(
    board_name: str,
    progress: Progress,
    *,
    release_name: str = "trixie",
    name: str | None = None,
    mirror: str | None = None,
    wheels: Sequence[str] = (),
    constraint: Path | None = None,
    folder: Path | None = None,
) -> VirtualPi:
    """Return a virtual Pi; one that is there and is what is asked for is taken as it is.

    Args:
        board_name: One of ``BOARDS``.
        progress: Told what is done.
        release_name: One of ``RELEASES``.
        name: What it is called; None is the board's name, with the release's where it is not the
            current one.
        mirror: A Debian archive; None is the one that this machine's apt uses.
        wheels: Requirements to install beside the package's own.
        constraint: A file of pins for pip.
        folder: Where devices lie; None is the cache.

    Raises:
        UsageError: The board or the release is not known, or this is no Debian and no mirror given.
        MissingError: A tool or a package is missing here, or cannot be fetched.
    """
    board, release = _known(board_name, BOARDS), _known(release_name, RELEASES)
    check_qemu()
    called = name or (board.name if release.name == "trixie" else f"{board.name}-{release.name}")
    root = (folder or cache_folder("devices")) / called
    pins = constraint.read_text() if constraint is not None else ""
    asked = (LAYOUT, board.name, release.name, *_requirements(), *wheels, pins)
    with _alone(root):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            there = VirtualPi(root)
            if there.record.asked == asked:
                return there
        _make(root, board, release, mirror or default_mirror(), asked, wheels, constraint, progress)
    return VirtualPi(root)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let others that want the same device wait meanwhile."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / f".{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(
    root: Path, board: Board, release: Release, mirror: str, asked: tuple[str, ...],
    wheels: Sequence[str], constraint: Path | None, progress: Progress,
) -> None:  # fmt: skip
    with atomic_directory(root, durable=False) as made, tempfile.TemporaryDirectory() as state:
        progress.step(f"Debian {release.name} for arm64 from {mirror}")
        packages = Archive(release.name, mirror, Path(state)).unpack(PACKAGES, made)
        for part in ("bin", "sbin", "lib"):  # what base-files' script would link
            if not (made / part).exists():
                (made / part).symlink_to(f"usr/{part}")
        progress.step(f"wheels for Python {release.python} on aarch64")
        installed = _install([*_requirements(), *wheels], release, made / SITE, constraint)
        record = Record(
            board=board.name, release=release.name, mirror=mirror, packages=packages,
            wheels=installed, asked=asked,
        )  # fmt: skip
        furnish(made, board, record)


def _known(name: str, table: Mapping[str, T]) -> T:
    if name not in table:
        raise UsageError(f"expected one of {', '.join(table)}, found {name!r}")
    return table[name]


def _requirements() -> list[str]:
    """Return what the device half needs, as the package itself says it."""
    required = importlib.metadata.requires("edgecls") or []
    own = [line.split(";")[0].strip() for line in required if ";" not in line]
    return [*sorted(own), BACKEND]


def _install(
    requirements: list[str], release: Release, site: Path, constraint: Path | None
) -> dict[str, str]:
    """Install wheels of another machine; return their versions."""
    version = release.python.replace(".", "")
    major, minor = release.glibc
    platforms = [f"manylinux_{major}_{part}_aarch64" for part in range(minor, 16, -1)]
    command = [
        sys.executable, "-m", "pip", "install", "-q", "--no-input", "--target", str(site),
        "--implementation", "cp", "--python-version", release.python, "--only-binary=:all:",
        *(f"--abi={abi}" for abi in (f"cp{version}", "abi3", "none")),
        *(f"--platform={name}" for name in [*platforms, "manylinux2014_aarch64"]),
        *(["-c", str(constraint)] if constraint is not None else []),
        *requirements,
    ]  # fmt: skip
    run(command)
    found = importlib.metadata.distributions(path=[str(site)])
    return {item.name: item.version for item in sorted(found, key=lambda item: item.name.lower())}
