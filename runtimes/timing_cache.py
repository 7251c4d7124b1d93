"""What TensorRT measured of its kernels, kept beside the engines for the next build."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..core.files import sha256_bytes, write_atomic
from ..core.progress import Gauge


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file's first line, as JSON; the timings follow."""

    gpu: str
    compute_capability: tuple[int, int]
    tensorrt: str
    sha256: str


class TimingCache:
    """The timings of one GPU with one TensorRT; of no use with another.

    Of two builds at once the one that ends last leaves its timings: the other's kernels are
    measured again when they are needed.

    Attributes:
        path: The file.
    """

    def __init__(
        self, folder: Path, *, gpu: str, compute_capability: tuple[int, int], tensorrt: str
    ) -> None:
        self._gpu = gpu
        self._compute_capability = compute_capability
        self._tensorrt = tensorrt
        called = msgspec.json.encode([gpu, compute_capability, tensorrt])
        self.path = folder / f"{sha256_bytes(called)[:32]}.timings"

    def read(self, progress: Gauge) -> bytes:
        """Return the timings; empty where there are none, and, said aloud, where they are damaged.

        Args:
            progress: Takes the notice.
        """
        try:
            line, newline, data = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return b""
        except OSError as error:
            progress.note(f"the timing cache {self.path} cannot be read: {error.strerror}")
            return b""
        try:
            found = msgspec.json.decode(line, type=_Header)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = None
        if not newline or found != self._header(data):
            progress.note(f"the timing cache {self.path} is damaged: it is made anew")
            return b""
        return data

    def write(self, data: bytes, progress: Gauge) -> None:
        """Keep the timings; where that fails the build is no worse, and it is said aloud."""
        try:
            write_atomic(self.path, msgspec.json.encode(self._header(data)) + b"\n" + data)
        except OSError as error:
            progress.note(
                f"the timing cache {self.path} cannot be written ({error.strerror}): the next "
                "build takes as long as this one"
            )

    def _header(self, data: bytes) -> _Header:
        return _Header(
            gpu=self._gpu,
            compute_capability=self._compute_capability,
            tensorrt=self._tensorrt,
            sha256=sha256_bytes(data),
        )
