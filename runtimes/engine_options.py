"""How a TensorRT engine is built and run."""

from __future__ import annotations

from typing import Final

import msgspec

from ..core.errors import UsageError

MAX_BATCH: Final = 1024
MAX_WORKSPACE_MB: Final = 1 << 24


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user may choose; the other backends take no notice of it.

    Attributes:
        max_batch: The most images that the engine takes at once, where the graph's batch is free.
        opt_batch: The batch that its kernels are chosen for.
        workspace_mb: The most GPU memory that a layer's kernel may need for itself, in MiB; None
            leaves all of it to TensorRT.
        implicit_int8: Whether TensorRT 10 quantizes the float32 graph itself, by the calibration
            cache of the bundle.
        cuda_graph: Whether the work of a batch is recorded once and replayed.
    """

    max_batch: int = 8
    opt_batch: int = 1
    workspace_mb: int | None = None
    implicit_int8: bool = False
    cuda_graph: bool = True

    def __post_init__(self) -> None:
        """Refuse batches that do not fit each other, and memory of no size."""
        if not 1 <= self.opt_batch <= self.max_batch <= MAX_BATCH:
            raise UsageError(
                f"expected 1 <= opt-batch <= max-batch <= {MAX_BATCH}, found opt-batch "
                f"{self.opt_batch} and max-batch {self.max_batch}"
            )
        if self.workspace_mb is not None and not 1 <= self.workspace_mb <= MAX_WORKSPACE_MB:
            raise UsageError(
                f"workspace-mb must lie in 1..{MAX_WORKSPACE_MB}, found {self.workspace_mb}"
            )

    @property
    def shape_of_build(self) -> tuple[object, ...]:
        """All that makes another engine of the same graph."""
        return self.max_batch, self.opt_batch, self.workspace_mb, self.implicit_int8


DEFAULT: Final = EngineOptions()
