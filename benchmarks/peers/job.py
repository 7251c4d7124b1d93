"""What the adapters share: a job in, timed stages, files out. Imports nothing but Python's own."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST = 200


@dataclass
class Job:
    """One conversion.

    Attributes:
        model: The torch program, ``.pt2``, batch 1.
        onnx: The same model as torch exports it.
        pixels: The calibration images, ``.npy``, (N, H, W, C) uint8.
        mean: Of each channel, after a division by 255.
        std: Of each channel, likewise.
        size: (channels, height, width).
        precision: "fp32" or "int8".
        out: Where files are written.
        options: The converter's own.
    """

    model: Path
    onnx: Path
    pixels: Path
    mean: list[float]
    std: list[float]
    size: list[int]
    precision: str
    out: Path
    options: dict[str, Any]
    stages: dict[str, float] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a part of the conversion."""
        start = time.perf_counter()
        yield
        self.stages[name] = time.perf_counter() - start

    def wrote(self, path: Path, *, variant: str = "", stages: Sequence[str] = ()) -> None:
        """Say which file was made, in which way, by which stages (all of them so far)."""
        took = {name: self.stages[name] for name in stages or self.stages}
        self.files.append({"path": str(path), "variant": variant, "stages": took})

    @contextlib.contextmanager
    def attempt(self, variant: str) -> Iterator[None]:
        """Keep a way's failure as its result: another way may still do."""
        try:
            yield
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            self.failed(error, variant=variant)

    def failed(self, error: BaseException | str, *, variant: str = "") -> None:
        """Say why there is no file."""
        self.files.append({"error": first_line(error), "variant": variant, "stages": {}})


def first_line(error: BaseException | str) -> str:
    """Return what went wrong, at its root, in one line."""
    if isinstance(error, str):
        line = next((line for line in error.splitlines() if line.strip()), "no message").strip()
        return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(str(error))}"


def main(convert: Callable[[Job], None]) -> None:
    """Run the job that the first argument names, and write ``out/result.json``."""
    fields = json.loads(Path(sys.argv[1]).read_text())
    fields |= {name: Path(fields[name]) for name in ("model", "onnx", "pixels", "out")}
    job = Job(**fields)
    try:
        convert(job)
    except (Exception, SystemExit) as error:  # whatever a converter raises is its result
        traceback.print_exc()
        job.failed(error)
    result = {"files": job.files, "peak_bytes": peak_bytes()}
    (job.out / "result.json").write_text(json.dumps(result))


def peak_bytes() -> int:
    """Return this process's peak resident memory."""
    # Not getrusage: its peak outlives exec, so that a child would report its parent's.
    with Path("/proc/self/status").open() as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
