"""What a model costs: parameters, multiply-accumulates, and the memory that learning from it takes.

Everything is worked out on torch's meta device: shapes flow, no weight and no pixel exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..core.errors import ModelError

# Batch norm refuses one value per channel in training mode: a last stage of 1x1 pixels has that.
_BATCH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A model's size and work.

    Attributes:
        parameters: How many numbers are learned.
        macs: Multiply-accumulates of one image, in convolutions and matrix products (attention's
            too): what papers and zoos report, often under the name FLOPs.
    """

    parameters: int
    macs: int


def model_cost(module: torch.nn.Module, size: tuple[int, int, int]) -> Cost:
    """Return the cost of one image of ``size`` (C, H, W).

    Args:
        module: On the meta device; it is put into evaluation mode.
        size: Of its input.

    Raises:
        ModelError: It does not run on an input of this size.
    """
    module.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        _forward(module, (1, *size))
    return Cost(
        parameters=sum(value.numel() for value in module.parameters()),
        macs=counter.get_total_flops() // 2,
    )


def activation_bytes(module: torch.nn.Module, size: tuple[int, int, int]) -> int:
    """Return the bytes per image, in float32, that autograd keeps from forward to backward.

    Args:
        module: On the meta device; it is put into training mode.
        size: (C, H, W) of its input.

    Raises:
        ModelError: It does not run on an input of this size.
    """
    module.train()
    own = {value.untyped_storage()._cdata for value in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with (
        torch.enable_grad(),
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = _forward(module, (_BATCH, *size))
    del output
    return sum(storage.nbytes() for storage in kept.values()) // _BATCH


def _forward(module: torch.nn.Module, shape: tuple[int, ...]) -> object:
    try:
        return module(torch.zeros(shape, device="meta"))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the model does not run on an input of {shape}: {reason}") from error
