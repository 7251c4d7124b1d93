"""What TensorRT's engine inspector tells of an engine's layers.

Its JSON differs by version: a layer is a name where the engine was built without details; a
tensor's type is a word of its "Format/Datatype" until TensorRT 10 and its "DataType" from 11 on.
Source: NVIDIA, "Engine Inspector" (TensorRT 8.6 to 11.4), and "Migrating IEngineInspector Usage
from TensorRT 10.x to 11.x".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from .layer import Layer, precision_of

_TYPES: Final = {
    "fp32": "float32", "float": "float32", "fp16": "float16", "half": "float16",
    "bf16": "bfloat16", "bfloat16": "bfloat16", "int8": "int8", "fp8": "float8", "int4": "int4",
    "fp4": "float4", "uint8": "uint8", "int32": "int32", "int64": "int64", "bool": "bool",
}  # fmt: skip


def layers_of(information: str, where: str) -> tuple[Layer, ...]:
    """Return the layers of ``get_engine_information`` in JSON, in the order in which they run."""
    layers = msgspec.json.decode(information)["Layers"]
    return tuple(_layer(layer, where) for layer in layers)


def _layer(said: str | Mapping[str, Any], where: str) -> Layer:
    if isinstance(said, str):
        return Layer(name=said, operator="", where=where, delegated=True, precision="")
    reads, gives = _type(said.get("Inputs")), _type(said.get("Outputs"))
    return Layer(
        name=str(said.get("Name", "")),
        operator=str(said.get("LayerType", "")),
        where=where,
        delegated=True,
        precision=precision_of(reads, "", gives) if reads else gives,
    )


def _type(tensors: Sequence[Mapping[str, Any]] | None) -> str:
    """Return the first tensor's type, in TensorRT's own words where they are not known."""
    if not tensors:
        return ""
    text = str(tensors[0].get("DataType", tensors[0].get("Format/Datatype", "")))
    known = (_TYPES.get(word) for word in re.findall(r"[a-z0-9]+", text.lower()))
    return next((name for name in known if name is not None), text)
