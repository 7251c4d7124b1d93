"""The JSON of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

import msgspec


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Name, type and shape of an input or output; -1 is the batch's free size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What ``GET /v2`` answers."""

    name: str
    version: str
    extensions: tuple[str, ...]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What ``GET /v2/models/NAME`` answers."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class InferInput(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that is sent: its values here, or behind the JSON (``binary_data_size``)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class WantedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent to ``/v2/models/NAME/infer``."""

    inputs: tuple[InferInput, ...]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: tuple[WantedOutput, ...] | None = None


class InferOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tensor that is answered."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}
    data: list[float] | None = None


class InferResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``/v2/models/NAME/infer`` answers."""

    model_name: str
    model_version: str
    outputs: tuple[InferOutput, ...]
    id: str | None = None


class ProtocolError(msgspec.Struct, frozen=True, kw_only=True):
    """The body of what is no success, in the protocol's own form."""

    error: str
