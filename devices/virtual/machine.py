"""Runs commands on a virtual Pi.

QEMU's user mode translates the Pi's programs and hands their system calls to this kernel. Files
are looked up in the Pi's root first and here otherwise, so that bundles and images need no copying.
A program that the Pi's Python starts is run by this kernel: what it finds is the launcher beside
it, which starts QEMU again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ...core.errors import MissingError, UsageError
from ...core.files import cache_folder, sha256_bytes
from .boards import BOARDS, RELEASES, Board, Release

QEMU: Final = "qemu-aarch64-static"
CPU_VARIABLE: Final = "QEMU_CPU"

# Where, in a root, things lie that are not Debian's.
SITE: Final = "opt/edgecls/site"
LAUNCHERS: Final = "opt/edgecls/bin"
_APPS: Final = "opt/edgecls/apps"
_RECORD: Final = "opt/edgecls/device.json"

# What a command there may see of this machine's environment.
_KEPT: Final = (
    "HOME",
    "TERM",
    "COLUMNS",
    "NO_COLOR",
    "EDGECLS_CACHE",
    "EDGECLS_DATA",
    CPU_VARIABLE,
)

_LAUNCHER: Final = """\
#!/bin/sh
# Starts the virtual Pi's Python; its programs start others through this file, too.
root=$(cd "$(dirname "$0")/../../.." && pwd)
unset LD_LIBRARY_PATH LD_PRELOAD VIRTUAL_ENV
# Nothing of this machine's packages, wherever its Python was told to look.
export PYTHONHOME="$root/usr" PYTHONNOUSERSITE=1
export {cpu_variable}="${{{cpu_variable}:-{cpu}}}"
export PYTHONPATH="${{EDGECLS_APP:?}}:$root/{site}"
exec {qemu} -0 "$root/{launchers}/python3" -L "$root" "$root/usr/bin/python{python}" "$@"
"""
_EDGECLS: Final = """\
#!/bin/sh
exec "$(dirname "$0")/python3" -m edgecls "$@"
"""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a virtual Pi is made of, as it is kept in its root.

    Attributes:
        board: Its name.
        release: Its name.
        mirror: Where Debian's packages came from.
        packages: Of Debian, by name, with versions.
        wheels: From the package index, by name, with versions.
        asked: What was to be installed: says whether it is still what is wanted.
    """

    board: str
    release: str
    mirror: str
    packages: dict[str, str]
    wheels: dict[str, str]
    asked: tuple[str, ...]


class VirtualPi:
    """A root that was created.

    Attributes:
        root: Its folder.
        record: What it is made of.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = msgspec.json.decode((root / _RECORD).read_bytes(), type=Record)

    @property
    def name(self) -> str:
        """What it is called: its folder's name, e.g. "pi5"."""
        return self.root.name

    @property
    def board(self) -> Board:
        """Its board."""
        return BOARDS[self.record.board]

    @property
    def release(self) -> Release:
        """Its system."""
        return RELEASES[self.record.release]

    @property
    def launchers(self) -> Path:
        """The folder of ``python3`` and ``edgecls`` that run on the Pi."""
        return self.root / LAUNCHERS

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables that a command there sees: few of this machine's.

        Raises:
            MissingError: QEMU is not installed.
        """
        _find_qemu()
        found = {name: os.environ[name] for name in _KEPT if name in os.environ}
        path = f"{self.launchers}:/usr/bin:/bin"
        app = str(self._app())
        return found | {"PATH": path, "LANG": "C.UTF-8", "EDGECLS_APP": app} | dict(extra or {})

    def run(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        capture: bool = True,
        folder: Path | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python3`` or ``edgecls`` with arguments; the exit code is the program's.

        Args:
            arguments: The program's name first.
            environment: More variables.
            capture: Whether the output is returned; else it goes where this process's goes.
            folder: Where it starts; None is here.
            timeout: Seconds; None waits for ever.

        Raises:
            MissingError: QEMU is not installed.
            UsageError: Another program is asked for.
        """
        if arguments[0] not in {"python3", "edgecls"}:
            raise UsageError(f"a virtual Pi runs python3 and edgecls, not {arguments[0]}")
        return subprocess.run(
            [str(self.launchers / arguments[0]), *arguments[1:]],
            env=self.environment(environment), capture_output=capture, text=True, check=False,
            cwd=folder, timeout=timeout,
        )  # fmt: skip

    def _app(self) -> Path:
        """Return a folder in which this very package is called ``edgecls``."""
        package = Path(__file__).resolve().parents[2]
        app = self.root / _APPS / sha256_bytes(str(package).encode())[:16]
        link = app / "edgecls"
        if not link.is_symlink():
            app.mkdir(parents=True, exist_ok=True)
            made = app / f".edgecls.{os.getpid()}"
            made.symlink_to(package)
            made.replace(link)
        return app


def furnish(root: Path, board: Board, record: Record) -> None:
    """Write into a root what makes it a device: launchers, /proc/cpuinfo, the record."""
    launchers = root / LAUNCHERS
    launchers.mkdir(parents=True)
    texts = {
        "python3": _LAUNCHER.format(
            cpu=board.cpu, cpu_variable=CPU_VARIABLE, site=SITE, launchers=LAUNCHERS, qemu=QEMU,
            python=RELEASES[record.release].python,
        ),
        "edgecls": _EDGECLS,
    }  # fmt: skip
    for name, text in texts.items():
        (launchers / name).write_text(text)
        (launchers / name).chmod(0o755)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(board.cpu_info())
    (root / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))


def _find_qemu() -> str:
    found = shutil.which(QEMU)
    if found is None:
        raise MissingError(f"{QEMU} is not installed; run: apt-get install qemu-user-static")
    return found


def check_qemu() -> str:
    """Return QEMU's version.

    Raises:
        MissingError: It is not installed.
    """
    done = subprocess.run([_find_qemu(), "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.split("\n", 1)[0] or QEMU).removeprefix("qemu-aarch64 version ")


def created(folder: Path | None = None) -> dict[str, VirtualPi]:
    """Return the virtual devices there are, by name."""
    found = (folder or cache_folder("devices")).glob(f"*/{_RECORD}")
    pis = [VirtualPi(path.parents[2]) for path in sorted(found)]
    return {pi.name: pi for pi in pis}
