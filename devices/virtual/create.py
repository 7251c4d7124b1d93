"""Makes a virtual Pi: Debian's packages for arm64, unpacked, and wheels from the package index.

Nothing of this machine's system is changed, and root's rights are not needed: apt works on a state
of its own, packages are unpacked and not installed, pip installs for another machine.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from ...core.errors import MissingError, UsageError
from ...core.files import atomic_directory, cache_folder
from ...core.progress import Progress
from .boards import BOARDS, RELEASES, Release
from .machine import SITE, Record, VirtualPi, check_qemu, furnish

PACKAGES: Final = ("ca-certificates", "coreutils", "dash", "libstdc++6", "python3", "python3-venv")

# What a Raspberry Pi bundle needs of the package index: the package's own list and its backend.
BACKEND: Final = "ai-edge-litert"

_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TOOLS: Final = {"apt-get": "apt", "dpkg-deb": "dpkg"}
_APT: Final = """\
Dir "{state}";
Dir::State "{state}/lib";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Etc "{state}/etc";
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
"""


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
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise MissingError(
                f"{tool} is not installed (package {package}): a virtual Pi is made on a Debian, "
                "an Ubuntu or their like"
            )
    if not _KEYRING.is_file():
        raise MissingError(f"{_KEYRING} is missing; run: apt-get install debian-archive-keyring")
    called = name or (board.name if release.name == "trixie" else f"{board.name}-{release.name}")
    root = (folder or cache_folder("devices")) / called
    pins = constraint.read_text() if constraint is not None else ""
    asked = (board.name, release.name, *_requirements(), *wheels, pins)
    with contextlib.suppress(OSError, ValueError):
        there = VirtualPi(root)
        if there.record.asked == asked:
            return there
    mirror = mirror or _mirror()
    with atomic_directory(root, durable=False) as made, tempfile.TemporaryDirectory() as state:
        progress.step(f"Debian {release.name} for arm64 from {mirror}")
        packages = _unpack(release, mirror, Path(state), made)
        progress.step(f"wheels for Python {release.python} on aarch64")
        installed = _install([*_requirements(), *wheels], release, made / SITE, constraint)
        record = Record(
            board=board.name, release=release.name, mirror=mirror, packages=packages,
            wheels=installed, asked=asked,
        )  # fmt: skip
        furnish(made, board, record)
    return VirtualPi(root)


T = TypeVar("T")


def _known(name: str, table: Mapping[str, T]) -> T:
    if name not in table:
        raise UsageError(f"expected one of {', '.join(table)}, found {name!r}")
    return table[name]


def _requirements() -> list[str]:
    """Return what the device half needs, as the package itself says it."""
    required = importlib.metadata.requires("edgecls") or []
    own = [line.split(";")[0].strip() for line in required if ";" not in line]
    return [*sorted(own), BACKEND]


def _mirror() -> str:
    """Return the Debian archive of this machine's apt."""
    done = _run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(CODENAME)|$(REPO_URI)"])
    for line in done.splitlines():
        origin, suite, uri = line.split("|", 2)
        if origin == "Debian" and suite.isalpha():
            return uri.rstrip("/")
    raise UsageError(
        "this machine's apt knows no Debian archive: give one with --mirror URL, or run apt-get "
        "update"
    )


def _unpack(release: Release, mirror: str, state: Path, root: Path) -> dict[str, str]:
    """Fetch and unpack Debian's packages; return their versions."""
    for part in ("lib/lists/partial", "cache/archives/partial", "etc"):
        (state / part).mkdir(parents=True)
    (state / "status").touch()
    source = f"deb [signed-by={_KEYRING}] {mirror} {release.name} main\n"
    (state / "etc/sources.list").write_text(source)
    config = state / "apt.conf"
    config.write_text(_APT.format(state=state))
    apt = ["apt-get", "-q", "-y", "-c", str(config)]
    _run([*apt, "update"])
    _run([*apt, "install", "--download-only", *PACKAGES])
    versions = {}
    for file in sorted((state / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "-x", str(file), str(root)])
        package, version, _ = file.name.split("_")
        versions[package] = version.replace("%3a", ":")
    for name in ("bin", "sbin", "lib"):  # what base-files' script would link
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    return versions


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
    _run(command)
    found = importlib.metadata.distributions(path=[str(site)])
    return {item.name: item.version for item in sorted(found, key=lambda item: item.name.lower())}


def _run(command: list[str]) -> str:
    """Run a tool and return what it prints.

    Raises:
        MissingError: It fails, with the last line that it says.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()
        raise MissingError(f"{Path(command[0]).name} failed ({done.returncode}): {said[-1]}")
    return done.stdout
