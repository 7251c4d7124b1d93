"""What the benchmark scripts share: the data, splits, a child process's peak memory, tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecls.data.images import list_images, select_images


def one_of(*names: str) -> Callable[[str], str]:
    """Return a type for names that may be left out: argparse checks a missing list as a choice."""

    def known(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, found {text!r}")
        return text

    return known


def data_folder() -> Path:
    """Return the folder of photos and weights that EDGECLS_DATA names."""
    value = os.environ.get("EDGECLS_DATA")
    if not value:
        sys.exit("set EDGECLS_DATA to the folder that holds imagenet500/, cifar10/ and weights/")
    return Path(value).resolve()


def split(images: Path, out: Path, calibrate: int, seed: int = 0) -> tuple[Path, Path]:
    """Link ``calibrate`` of a folder's images into one folder and the others into a second."""
    every = list_images(images)
    chosen = {image.name for image in select_images(every, calibrate, seed)}
    for image in every:
        link = out / ("calibration" if image.name in chosen else "judged") / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.path.resolve())
    return out / "calibration", out / "judged"


def keep_images(folder: Path, count: int) -> None:
    """Leave a seeded choice of a folder's images."""
    every = list_images(folder)
    kept = {image.name for image in select_images(every, count, 0)}
    for image in every:
        if image.name not in kept:
            image.path.unlink()


def cifar_folder(data: Path, part: str, out: Path) -> Path:
    """Unpack a part of CIFAR-10 into an image folder."""
    folder = out / part
    script = data / "cifar10" / "unpack.py"
    subprocess.run([sys.executable, script, part, folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@dataclass(frozen=True)
class Finished:
    """A command's output as JSON, its seconds and its peak resident memory."""

    found: dict[str, object]
    seconds: float
    peak_bytes: int


_CHILD = """
import json, runpy, sys, time
sys.argv = ["edgecls", *sys.argv[1:]]
start = time.perf_counter()
try:
    runpy.run_module("edgecls", run_name="__main__")
except SystemExit as stop:
    code = stop.code
# Not getrusage: its peak outlives exec, so that a child would report its parent's.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
peak = int(peak.split()[1]) * 1024
print(json.dumps({"seconds": time.perf_counter() - start, "peak_bytes": peak}), file=sys.stderr)
sys.exit(code)
"""


def edgecls(*arguments: object, codes: Sequence[int] = (0,)) -> Finished:
    """Run a command with ``--json`` in a process of its own."""
    command = [sys.executable, "-c", _CHILD, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        sys.exit(
            f"edgecls {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr}"
        )
    usage = json.loads(done.stderr.strip().splitlines()[-1])
    return Finished(json.loads(done.stdout), usage["seconds"], usage["peak_bytes"])


def python(code: str, *arguments: object) -> str:
    """Return the last line that a program prints, run in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1]


def machine() -> str:
    """Return what this was measured on, in a line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines()
                 if line.startswith("model name")]  # fmt: skip
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i == 0 else c.rjust(w)
                  for i, (c, w) in enumerate(zip(cells, widths, strict=True))]  # fmt: skip
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def work_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that is removed at the end."""
    return tempfile.TemporaryDirectory(prefix="edgecls-benchmark-")
