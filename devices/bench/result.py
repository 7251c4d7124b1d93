"""What ``edgecls bench`` found: its JSON form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ...core.errors import BadInputError
from ...core.values import Precision
from ...targets.target import BackendName
from ..doctor import Finding
from .process import ColdStart, Memory, Process

SCHEMA_VERSION: Final = 1

EMULATED: Final = "emulated: no figure of the board"

# Above, another program took the processor often enough to be seen in the median.
_BUSY: Final = 0.05

# Below, the 99th percentile is the slowest run or close to it.
_LEAST_FOR_P99: Final = 100


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles in milliseconds: the least time that so many percent of the runs do not exceed.

    Attributes:
        p50: The median.
        p90: As said.
        p99: As said; None of less than 100 runs.
    """

    p50: float
    p90: float
    p99: float | None

    @classmethod
    def of(cls, runs_ms: Sequence[float]) -> Times:
        """Return those of one or more runs."""
        ordered = sorted(runs_ms)

        def percentile(share: int) -> float:
            return ordered[math.ceil(share * len(ordered) / 100) - 1]

        p99 = percentile(99) if len(ordered) >= _LEAST_FOR_P99 else None
        return cls(p50=percentile(50), p90=percentile(90), p99=p99)


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle takes on a machine.

    Attributes:
        edgecls: The version that measured.
        bundle_sha256: Of its manifest.
        target: The bundle's.
        artefact: The file that ran.
        precision: Of what ran.
        backend: What ran it.
        description: Of the backend: library, version, device.
        fell_back: Why it is a simulation, else None.
        problem: What is wrong with this machine though the answers are right, else None.
        threads: That the backend was given; None where the runtime chose.
        batch: Images at once.
        runs: Measured batches of each process.
        warmup: Batches before them.
        images: How many different images went round.
        images_sha256: Of their files.
        stages: Of all processes' runs: "decode", "preprocess", "inference", "postprocess" of a
            batch, and "total" around it all.
        per_s: Images per second of ``predict_stream``: the processes' median.
        cold_start: The median of each part.
        memory: The median of each moment.
        clocks_mhz: By unit: the lowest and the highest during the runs.
        temperatures_c: By place: the lowest and the highest.
        energy_j: By meter: per image during the runs, with all else that it feeds.
        watched: What the board told: of "clocks", "temperatures", "throttling", "energy".
        waiting: The share of the time for which the process waited for a core; None where the
            system does not tell.
        emulated: Whether it ran on a virtual device: then nothing here is a figure of the board.
        invalid: Why the figures are not to be used; empty where nothing says so.
        machine: What the machine is.
        processes: All that was measured.
    """

    edgecls: str
    bundle_sha256: str
    target: str
    artefact: str
    precision: Precision
    backend: BackendName
    description: dict[str, str]
    fell_back: str | None
    problem: str | None
    threads: int | None
    batch: int
    runs: int
    warmup: int
    images: int
    images_sha256: str
    stages: dict[str, Times]
    per_s: float
    cold_start: ColdStart
    memory: Memory
    clocks_mhz: dict[str, tuple[float, float]]
    temperatures_c: dict[str, tuple[float, float]]
    energy_j: dict[str, float]
    watched: tuple[str, ...]
    waiting: float | None
    emulated: bool
    invalid: tuple[str, ...]
    machine: tuple[Finding, ...]
    processes: tuple[Process, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def busy(self) -> bool:
        """Whether other programs took so much of the processor that the figures are doubtful."""
        return self.waiting is not None and self.waiting > _BUSY

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return msgspec.json.encode(self) + b"\n"


def read_result(path: Path) -> BenchResult:
    """Read a file of ``edgecls bench -o``.

    Raises:
        BadInputError: It is none, or of another version.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=BenchResult)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(f"{path}: expected a file of edgecls bench -o: {why}") from error
    if found.schema_version != SCHEMA_VERSION:
        raise BadInputError(
            f"{path}: schema version {found.schema_version}, this edgecls reads {SCHEMA_VERSION}; "
            "measure again"
        )
    return found
