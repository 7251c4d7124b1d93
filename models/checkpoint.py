"""Reads weights files without running what is in them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch

from ..core.errors import CheckpointError
from ..core.files import sha256_file

SUFFIXES: Final = (".pth", ".pt", ".th", ".tar", ".ckpt", ".safetensors")
# The averaged weights first: they are what such a training is judged by.
_WRAPPERS: Final = ("state_dict_ema", "state_dict", "model_state_dict", "model")
_PREFIXES: Final = ("module.", "_orig_mod.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Tensors by name, in the file's order, with what was done to get there."""

    path: Path
    tensors: dict[str, torch.Tensor]
    sha256: str
    notes: tuple[str, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the tensors of a weights file: unwrapped, without prefixes, all finite.

    Raises:
        CheckpointError: No such file, a format that is not known, a damaged or foreign file, a
            pickled module, or a weight that is NaN or infinite.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(
            f"{path}: expected a weights file ({', '.join(SUFFIXES)}), found {path.suffix!r}"
        )
    notes: list[str] = []
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read(path)
    tensors = _tensors(path, _unwrap(content, notes))
    tensors = _without_prefixes(tensors, notes)
    _check_values(path, tensors)
    return Checkpoint(path=path, tensors=tensors, sha256=sha256_file(path), notes=tuple(notes))


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error


def _read(path: Path) -> object:
    # torch does not compare the checksums that its zip files hold.
    if zipfile.is_zipfile(path):
        damaged = _damaged_part(path)
        if damaged is not None:
            raise CheckpointError(f"{path}: damaged: {damaged} has another checksum; copy it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere inside the unpickler
        text = str(error)
        found = re.search(r"Unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]+)", text)
        if found:
            raise CheckpointError(
                f"{path}: holds a Python object ({found[1]}), not only tensors, and loading it "
                "would run code; save the weights alone: torch.save(model.state_dict(), FILE)"
            ) from error
        # Torch's own text may advise to load without the safety: it is not passed on.
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}): expected a state dict "
            "that torch.save wrote"
        ) from error


def _damaged_part(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except Exception as error:  # zipfile raises whatever damaged headers lead it to
        return f"its index ({type(error).__name__})"


def _unwrap(content: object, notes: list[str]) -> object:
    if isinstance(content, Mapping):
        for name in _WRAPPERS:
            inner = content.get(name)
            if isinstance(inner, Mapping) and inner:
                notes.append(f"took the weights from the checkpoint's entry {name!r}")
                return inner
    return content


def _tensors(path: Path, content: object) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: expected a state dict (tensors by name), found {type(content).__name__}"
        )
    tensors: dict[str, torch.Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{path}: expected only tensors by name, found {_described(value)} "
                f"at {name!r}; save model.state_dict()"
            )
        tensors[name] = value.detach()
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights")
    return tensors


def _described(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}"


def _without_prefixes(
    tensors: dict[str, torch.Tensor], notes: list[str]
) -> dict[str, torch.Tensor]:
    removed = ""
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        removed += prefix
    if removed:
        notes.append(f"removed the prefix {removed!r} from the names of the weights")
    return tensors


def _check_values(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        odd = tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex()
        if odd or tensor.device.type != "cpu":
            raise CheckpointError(
                f"{path}: {name} is a {tensor.dtype} tensor ({tensor.layout}, on "
                f"{tensor.device.type}); expected dense real weights"
            )
    bad = [name for name, tensor in tensors.items() if not bool(tensor.float().isfinite().all())]
    if bad:
        raise CheckpointError(
            f"{path}: NaN or infinity in {len(bad)} of {len(tensors)} weights: {_first(bad)}; "
            "the training diverged or the file is damaged"
        )


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
