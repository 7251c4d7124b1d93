"""Boots a virtual Pi as a whole machine: Debian's kernel, the root in memory, one command."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgecls.devices.virtual import VirtualPi
from edgecls.devices.virtual.debian import Archive
from edgecls.devices.virtual.machine import SITE

KERNEL = "linux-image-cloud-arm64"

# The machine's first process: mounts what Python and LiteRT read, runs, says the exit code, and
# switches the machine off.
INIT = """#!/usr/bin/python{python}
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None)
for kind, place in ((b"proc", b"/proc"), (b"sysfs", b"/sys"), (b"devtmpfs", b"/dev")):
    os.makedirs(place, exist_ok=True)
    libc.mount(kind, place, kind, 0, None)
os.makedirs("/tmp", exist_ok=True)
environment = {{"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8",
               "PYTHONPATH": "/app:/{site}"}}
code = subprocess.run({command!r}, env=environment).returncode
print("EXIT", code, flush=True)
os.sync()
libc.reboot(0x4321FEDC)
"""


def kernel_of(pi: VirtualPi, folder: Path) -> Path:
    """Fetch the kernel of the Pi's release."""
    state = folder / "apt"
    state.mkdir(parents=True)
    archive = Archive(pi.record.release, pi.record.mirror, state)
    (image,) = [name for name in archive.depends(KERNEL) if name.startswith("linux-image-")]
    archive.unpack_alone(image, folder / "kernel")
    (kernel,) = (folder / "kernel/boot").glob("vmlinuz-*")
    return kernel


def boot(
    pi: VirtualPi, command: list[str], files: dict[str, Path], *, memory_mb: int = 3072
) -> tuple[int, str]:
    """Return a command's exit code and all that the console showed.

    Args:
        pi: Whose root, core and release.
        command: Run as root.
        files: Folders to copy, by where they shall be.
        memory_mb: Of the machine; the root lies in it, packed and unpacked.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        kernel = kernel_of(pi, work)
        root = work / "root"
        shutil.copytree(pi.root, root, symlinks=True, ignore=shutil.ignore_patterns("apps"))
        shutil.rmtree(root / "proc")
        for place, source in files.items():
            shutil.copytree(source, root / place, ignore=shutil.ignore_patterns(".*", "build"))
        init = root / "init"
        init.write_text(INIT.format(python=pi.release.python, site=SITE, command=command))
        init.chmod(0o755)
        packed = work / "root.cpio"
        with packed.open("wb") as file:
            names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
            subprocess.run(
                ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=root, stdout=file,
                input=names.encode(), check=True,
            )  # fmt: skip
        done = subprocess.run(
            ["qemu-system-aarch64", "-M", "virt", "-cpu", pi.board.cpu, "-smp", "2",
             "-m", str(memory_mb), "-kernel", kernel, "-initrd", packed, "-nographic",
             "-no-reboot", "-append", "console=ttyAMA0 quiet panic=-1", "-net", "none"],
            capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=800,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
    console = done.stdout.decode(errors="replace").replace("\r", "")
    code = [line.split()[1] for line in console.splitlines() if line.startswith("EXIT ")]
    assert code, f"the machine did not come up: {console[-3000:]} {done.stderr[-1000:]!r}"
    return int(code[0]), console
