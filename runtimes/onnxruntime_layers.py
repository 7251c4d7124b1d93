"""Which provider of ONNX Runtime ran each node: its own profile of one run says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from .layer import Layer, precision_of

_TIME: Final = "_kernel_time"
_NAMES: Final = {"float": "float32", "double": "float64"}


def layers_of(profile: Path, provider: str) -> tuple[Layer, ...]:
    """Return the nodes that ran, in their order, after what ONNX Runtime fused and inserted.

    Args:
        profile: What ``end_profiling`` wrote of one run.
        provider: The one that the backend is chosen for.
    """
    events = msgspec.json.decode(profile.read_bytes())
    nodes = [
        event for event in events
        if event.get("cat") == "Node" and event["name"].endswith(_TIME)
    ]  # fmt: skip
    return tuple(_layer(node["name"].removesuffix(_TIME), node["args"], provider) for node in nodes)


def _layer(name: str, said: Mapping[str, Any], provider: str) -> Layer:
    reads, gives = _types(said.get("input_type_shape", ())), _types(said["output_type_shape"])
    return Layer(
        name=name,
        operator=said["op_name"],
        where=said["provider"],
        delegated=said["provider"] == provider,
        precision=precision_of(reads[0], "", gives[0] if gives else "") if reads else "",
    )


def _types(tensors: Any) -> list[str]:
    """Return each tensor's type; the profile gives a tensor as {type: shape}."""
    return [_NAMES.get(name, name) for tensor in tensors for name in tensor]
