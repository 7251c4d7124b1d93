"""What the server's OpenAPI document says beside the paths: schemas, bodies, examples."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..runtimes.prediction import Ranked
from .bodies import RAW_TYPES, EncodedImages
from .card import ModelCard
from .errors import ErrorBody
from .field import FieldSketch
from .protocol_types import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    ProtocolError,
    ServerMetadata,
)

_REF: Final = "#/components/schemas/"

_PREDICTION: Final = {
    "image": "cat.jpg",
    "topk": [
        {"index": 281, "label": "tabby cat", "score": 0.7312},
        {"index": 282, "label": "tiger cat", "score": 0.1981},
    ],
    "speed_ms": {
        "decode": 2.114, "preprocess": 1.02, "queue": 0.08, "inference": 4.9, "postprocess": 0.06,
    },
}  # fmt: skip
# A whole PNG, so that the example can be sent as it is.
_BROWN: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlE"
    "QVR42mM8UaHBgA0wMeAAg1MCAB4nAXgllso1AAAAAElFTkSuQmCC"
)
_UNUSABLE: Final = {"image": "notes.txt", "error": "not an image: unknown format"}

_ERRORS: Final = {
    400: ("Not as described here.", "bad_request", "topk: expected 1 or more, found 0"),
    401: ("The API key is missing or another.", "unauthorized", "expected the API key: ..."),
    403: ("Asked by another site's page.", "forbidden", "another site's page may not ..."),
    404: ("No such model.", "not_found", "no model 'x'; there is 'resnet18'"),
    408: ("The body did not arrive in time.", "slow_body", "the body did not arrive within 10 s"),
    413: ("Too large, or too many.", "too_large", "the body is larger than 8388608 bytes"),
    415: ("No type of image.", "unknown_type", "expected multipart/form-data, ..."),
    422: ("No image of the request can be used.", "unusable_image", "image: damaged"),
    503: ("Overloaded, or too late: see Retry-After.", "overloaded", "32 images are being ..."),
}  # fmt: skip


def components() -> dict[str, Any]:
    """Return the schemas that ``ref`` names, made from the structs that are sent."""
    types = [
        Ranked, EncodedImages, ErrorBody, FieldSketch, ModelCard, InferRequest, InferResponse,
        ModelMetadata, ProtocolError, ServerMetadata,
    ]  # fmt: skip
    _, found = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
    found["Prediction"] = {
        "type": "object",
        "required": ["image", "topk", "speed_ms"],
        "properties": {
            "image": {"type": "string"},
            "topk": {"type": "array", "items": {"$ref": _REF + "Ranked"}, "minItems": 1},
            "speed_ms": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        "additionalProperties": False,
    }
    found["Unusable"] = {
        "type": "object",
        "required": ["image", "error"],
        "properties": {"image": {"type": "string"}, "error": {"type": "string"}},
        "additionalProperties": False,
    }
    either = [{"$ref": _REF + "Prediction"}, {"$ref": _REF + "Unusable"}]
    found["Predictions"] = {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array", "items": {"anyOf": either}, "minItems": 1}},
        "additionalProperties": False,
    }
    return found


def ref(name: str, example: Any = None) -> dict[str, Any]:
    """Return the content of an answer or a body in JSON."""
    content: dict[str, Any] = {"schema": {"$ref": _REF + name}}
    if example is not None:
        content["example"] = example
    return {"application/json": content}


def answers(
    name: str, *errors: int, example: Any = None, protocol: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Return a path's answers: the good one, and errors by their status.

    Args:
        name: The good one's schema.
        errors: Their statuses.
        example: Of the good one.
        protocol: Whether errors have the form of the Open Inference Protocol.
    """
    found: dict[int | str, dict[str, Any]] = {
        200: {"description": "Done.", "content": ref(name, example)}
    }
    for status in errors:
        what, code, message = _ERRORS[status]
        if protocol:
            content = ref("ProtocolError", {"error": message})
        else:
            content = ref("ErrorBody", {"error": {"code": code, "message": message}})
        found[status] = {"description": what, "content": content}
        if status == 503:
            seconds = {"schema": {"type": "integer"}, "description": "Seconds to wait."}
            found[status]["headers"] = {"Retry-After": seconds}
    return found


PREDICTIONS_EXAMPLE: Final = {"predictions": [_PREDICTION, _UNUSABLE]}

PREDICT_BODY: Final = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "minItems": 1,
                    }
                },
                "additionalProperties": False,
            }
        },
        "application/json": {
            "schema": {"$ref": _REF + "EncodedImages"},
            "example": {"images": [{"name": "brown.png", "data": _BROWN}]},
        },
        **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in RAW_TYPES},
    },
}
