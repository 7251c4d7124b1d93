"""Puts a checkpoint's tensors into a module, by name or, where all names differ, by order."""

from __future__ import annotations

from typing import Final

import torch

from ..core.errors import CheckpointError
from .checkpoint import Checkpoint
from .head import head_layers

# Batch norm's counter: no inference uses it, and old checkpoints lack it.
_COUNTER: Final = "num_batches_tracked"
_LISTED: Final = 4

Tensors = dict[str, torch.Tensor]


def fit_checkpoint(
    module: torch.nn.Module, checkpoint: Checkpoint, look_alike: str | None = None, *,
    new_head: int | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Load all weights into ``module``, each exactly once.

    Args:
        module: Changed in place.
        checkpoint: What to load.
        look_alike: An architecture that would take the same weights, for the message.
        new_head: The module's number of classes, where a file without a head or with one for
            another number is taken too: the module's own head is then kept as it is.

    Returns:
        What was done beyond taking them by name.

    Raises:
        CheckpointError: A name or a shape does not fit; the message lists the first few.
    """
    state = module.state_dict()
    expected = _without_counters(state)
    found = _without_counters(checkpoint.tensors)
    notes = list(checkpoint.notes)
    if new_head is not None:
        expected, found = _without_head(module, expected, found, new_head, notes)
    if expected.keys() != found.keys():
        found = _renamed(expected, found, checkpoint)
        example = f", such as {look_alike}," if look_alike else ""
        notes.append(
            f"the names of the weights differ from the model's: took all {len(found)} in their "
            "order, in which shapes and kinds agree one by one; check the accuracy, as another "
            f"architecture with the same shapes{example} would take them too"
        )
    _check_shapes(expected, found, checkpoint)
    kinds = [n for n in expected if expected[n].is_floating_point() != found[n].is_floating_point()]
    if kinds:
        raise CheckpointError(
            f"{checkpoint.path}: {kinds[0]} is {found[kinds[0]].dtype}, the model has "
            f"{expected[kinds[0]].dtype}; give the float weights, not quantized ones"
        )
    types = {tensor.dtype for tensor in found.values() if tensor.is_floating_point()}
    if types - {torch.float32}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
        notes.append(f"converted the weights from {names} to float32")
    module.load_state_dict({**state, **found}, strict=True)
    return tuple(notes)


def _without_counters(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name.split(".")[-1] != _COUNTER}


def _without_head(
    module: torch.nn.Module, expected: Tensors, found: Tensors, classes: int, notes: list[str]
) -> tuple[Tensors, Tensors]:
    """Leave out what differs in the number of classes alone, or a head that the file lacks."""
    sizes = {
        name: len(found[name])
        for name, tensor in expected.items()
        if name in found and tensor.ndim and found[name].ndim == tensor.ndim
        and len(tensor) == classes != len(found[name]) and tensor.shape[1:] == found[name].shape[1:]
    }  # fmt: skip
    absent = [name for name in expected if name not in found]
    if len(set(sizes.values())) == 1:
        left, why = list(sizes), f"the file's has {next(iter(sizes.values()))} classes"
    elif absent and not found.keys() - expected.keys():
        heads = tuple(f"{name}." for name in head_layers(module, classes))
        left, why = [name for name in absent if name.startswith(heads)], "the file has none"
    else:
        return expected, found
    notes.append(f"the head is new, with {classes} classes ({why}): {_listed(left)}")
    return (
        {name: tensor for name, tensor in expected.items() if name not in left},
        {name: tensor for name, tensor in found.items() if name not in left},
    )


def _renamed(expected: Tensors, found: Tensors, checkpoint: Checkpoint) -> Tensors:
    """Return ``found`` under the names of ``expected``, where their order leaves no doubt.

    Shapes alone would not do: a batch norm's four vectors have the same one. So the last part of
    each name (weight, bias, running_mean, ...) must agree too, and a name that both sides have
    must stand at the same place.
    """
    head = list(expected)[-1].rsplit(".", 1)[0]  # its shapes are judged with the number of classes
    pairs = list(zip(expected, found, strict=False))
    in_order = len(expected) == len(found) and all(
        ours.split(".")[-1] == theirs.split(".")[-1]
        and (expected[ours].shape == found[theirs].shape or ours.rsplit(".", 1)[0] == head)
        and (ours == theirs or (theirs not in expected and ours not in found))
        for ours, theirs in pairs
    )
    if in_order:
        return {ours: found[theirs] for ours, theirs in pairs}
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    raise CheckpointError(
        f"{checkpoint.path} does not fit the model, by name or by order: "
        f"the model has {len(expected)} weights, the file {len(found)}; "
        f"missing: {_listed(missing)}; not in the model: {_listed(extra)}"
    )


def _check_shapes(expected: Tensors, found: Tensors, checkpoint: Checkpoint) -> None:
    wrong = [name for name in expected if expected[name].shape != found[name].shape]
    if not wrong:
        return
    classes = _other_head(expected, found, wrong)
    if classes is not None:
        raise CheckpointError(
            f"{checkpoint.path}: its head {wrong[0]!r} has {classes} classes, the model has "
            f"{expected[wrong[0]].shape[0]}; give --num-classes {classes}"
        )
    listed = [f"{name} {_shape(expected[name])} != {_shape(found[name])}" for name in wrong]
    raise CheckpointError(
        f"{checkpoint.path}: {len(wrong)} of {len(expected)} shapes do not fit "
        f"(model != file): {_listed(listed)}"
    )


def _other_head(expected: Tensors, found: Tensors, wrong: list[str]) -> int | None:
    """Return the file's number of classes where only the head's first axis differs."""
    tail = {name.rsplit(".", 1)[0] for name in wrong}
    sizes = {(found[name].shape[:1], expected[name].shape[:1]) for name in wrong}
    rest = all(
        found[name].ndim > 0 and expected[name].shape[1:] == found[name].shape[1:] for name in wrong
    )
    if len(tail) == len(sizes) == 1 and rest and wrong[-1] == list(expected)[-1]:
        return int(found[wrong[0]].shape[0])
    return None


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
