"""A virtual Pi as it is on its first day: entered as its root, without a package of ours.

The launcher of a virtual Pi runs one Python and finds other files on this machine. Here the Pi's
root is the root: Linux itself starts QEMU for each program of the Pi (binfmt_misc), in namespaces
that need no rights and are gone with the last program.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from edgecls.devices.virtual import VirtualPi
from edgecls.devices.virtual.machine import QEMU

HOME = "/home/pi"
WHEELS = "/wheels"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
NETWORK = ("etc/resolv.conf", "etc/hosts")

# What of pip's configuration says where packages come from.
INDEX = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert")

# Arm64's ELF header, as Debian's qemu-user-static has it. F: QEMU is found though it is not in the
# root; P: programs see the name that they were called by.
_ELF = (
    r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
)
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
_BINFMT = "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"
_ENTER = """
set -e
root=$1 cpuinfo=$2 folders=$3; shift 3
{binfmt}
printf '%s' ':arm64:M::{magic}:{mask}:{qemu}:FP' > /proc/sys/fs/binfmt_misc/register
for folder in /dev /sys $folders; do
    mkdir -p "$root$folder"
    mount --rbind "$folder" "$root$folder"
done
mount -t proc proc "$root/proc"
mount --bind "$cpuinfo" "$root/proc/cpuinfo"
exec chroot "$root" /usr/bin/env -i "$@"
"""


def why_not() -> str | None:
    """Return why none can be entered here."""
    if shutil.which("unshare") is None:
        return "unshare is not installed: apt-get install util-linux"
    done = subprocess.run(
        [*_UNSHARE, "sh", "-c", _BINFMT], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"no namespace with a binfmt_misc of its own (Linux 6.7): {done.stderr.strip()}"
    return None


class FreshPi:
    """A copy of a virtual Pi's system, without edgecls and what it needs.

    Attributes:
        root: Its folder.
        home: The user's home folder in it.
    """

    def __init__(self, pi: VirtualPi, root: Path, wheel: Path, pins: Path) -> None:
        """Copy it.

        Args:
            pi: Of whose board and release.
            root: The folder to make.
            wheel: What "edgecls" is for its pip.
            pins: Versions of what that needs, as a file of pip's constraints.
        """
        self.root = root
        self.home = root / HOME[1:]
        self._pi = pi
        shutil.copytree(pi.root, root, symlinks=True, ignore=shutil.ignore_patterns("edgecls"))
        for folder in ("home/pi", "tmp", "etc/systemd/system", "etc/ssl/certs", WHEELS[1:]):
            (root / folder).mkdir(parents=True, exist_ok=True)
        sudo = root / "usr/bin/sudo"
        sudo.write_text('#!/bin/sh\nexec "$@"\n')
        sudo.chmod(0o755)
        shutil.copy(wheel, root / WHEELS[1:])
        (root / WHEELS[1:] / "pins.txt").write_text(
            f"{pins.read_text()}\nedgecls=={wheel.name.split('-')[1]}\n"
        )
        index = _index()
        # What Debian's package makes when it is set up, and the network: those of here.
        copied = {name: f"/{name}" for name in (*NETWORK, CERTIFICATES)}
        copied[CERTIFICATES] = index.pop("cert", copied[CERTIFICATES])
        for place, source in copied.items():
            if Path(source).is_file():
                shutil.copy(source, root / place)
        places = [place for value in index.values() for place in value.split()]
        self._folders = sorted({path for path in map(_folder, places) if path})
        # Of two wheels of one version, pip takes that of a folder, not the index's.
        index["find-links"] = f"{WHEELS} {index.get('find-links', '')}".strip()
        self._environment = {
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PIP_CONSTRAINT": f"{WHEELS}/pins.txt",
            "QEMU_CPU": pi.board.cpu,
            **{f"PIP_{name.upper().replace('-', '_')}": value for name, value in index.items()},
        }

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of shell at the user's home."""
        script = _ENTER.format(binfmt=_BINFMT, magic=_ELF[0], mask=_ELF[1], qemu=shutil.which(QEMU))
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        return subprocess.run(
            [*_UNSHARE, "sh", "-c", script, "sh", self.root, self._pi.root / "proc/cpuinfo",
             " ".join(self._folders), *variables, "/bin/sh", "-c", f"cd && {line}"],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip


def _index() -> dict[str, str]:
    """Return where pip looks here, as its configuration says."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    lines = [line.partition("=") for line in done.stdout.splitlines()]
    found = {name: ast.literal_eval(value) for name, _, value in lines}
    # The environment's (":env:") come first in the list, and count more than a file's.
    ordered = sorted(found.items(), key=lambda item: item[0].startswith(":env:"))
    named = {name.rpartition(".")[2]: value for name, value in ordered}
    return {name: named[name] for name in INDEX if name in named}


def _folder(place: str) -> str | None:
    """Return the folder of this machine that an index is in; None for one that is elsewhere."""
    path = Path(urlsplit(place).path if place.startswith("file://") else place)
    if not path.is_absolute() or not path.is_dir():
        return None
    return str(path.parent if path.name == "simple" else path)  # its files lie beside the list
