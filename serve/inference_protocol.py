"""The Open Inference Protocol (KServe v2, HTTP), with its binary extension.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and
Triton's extension_binary_data.md.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from fastapi import APIRouter, Request, Response

from ..core.values import Logits, Tensor
from ..core.version import VERSION
from .bodies import read_body
from .card import model_name
from .errors import RequestError
from .openapi import answers, ref
from .protocol_types import (
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ServerMetadata,
    TensorMetadata,
)
from .service import Service

INPUT: Final = "input"
OUTPUT: Final = "logits"
_HEADER_LENGTH: Final = "inference-header-content-length"


def inference_protocol(service: Service) -> APIRouter:
    """Return the protocol's paths.

    The input is what the network takes, the same for every target and precision: images after
    ``preprocess``, normalised, (N, C, H, W) float32. The output is the logits, (N, classes)
    float32, without softmax. A model with integer inputs takes each value's nearest code.
    """
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    one = "/models/{name}"
    version = one + "/versions/{version}"

    def check(name: str, asked: str | None) -> None:
        known, at = model_name(service.model), service.model.sha256[:12]
        if name != known or asked not in (None, at):
            raise RequestError(
                404, "not_found", f"there is the model {known!r} in version {at!r}, and no other"
            )

    @router.get("", responses=answers("ServerMetadata", 401, protocol=True))
    async def server() -> Response:
        """Say which protocol this is."""
        return _json(
            ServerMetadata(name="edgecls", version=VERSION, extensions=("binary_tensor_data",))
        )

    @router.get("/health/live", response_class=Response)
    async def live() -> Response:
        """Answer 200 as long as the process runs."""
        return Response()

    @router.get("/health/ready", response_class=Response)
    async def ready() -> Response:
        """Answer 200: there is no server without a verified model."""
        return Response()

    @router.get(version, responses=answers("ModelMetadata", 401, 404, protocol=True))
    @router.get(one, responses=answers("ModelMetadata", 401, 404, protocol=True))
    async def metadata(name: str, version: str | None = None) -> Response:
        """Say what the model takes and gives."""
        check(name, version)
        return _json(_metadata(service))

    @router.get(version + "/ready", responses=answers("ModelMetadata", 401, 404, protocol=True))
    @router.get(one + "/ready", responses=answers("ModelMetadata", 401, 404, protocol=True))
    async def model_ready(name: str, version: str | None = None) -> Response:
        """Answer 200 where there is this model."""
        check(name, version)
        return _json(_metadata(service))

    infer_answers = answers("InferResponse", 400, 401, 403, 404, 408, 413, 503, protocol=True)
    body = {"requestBody": {"required": True, "content": ref("InferRequest")}}

    @router.post(version + "/infer", responses=infer_answers, openapi_extra=body)
    @router.post(one + "/infer", responses=infer_answers, openapi_extra=body)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Run the network on normalised images."""
        check(name, version)
        with service.admitted():
            sent = await read_body(request, service.settings)
            length = request.headers.get(_HEADER_LENGTH)
            asked, tensor = await service.parse(_decode, sent, length)
        if len(tensor) > service.settings.max_images:
            raise RequestError(
                413, "too_many_images",
                f"{len(tensor)} images, the most in a request is {service.settings.max_images}",
            )  # fmt: skip
        logits = await service.logits(tensor)
        return _answer(asked, logits, name, service.model.sha256[:12])

    return router


def _metadata(service: Service) -> ModelMetadata:
    predictor = service.model.predictor
    height, width = predictor.input_size
    channels = predictor.bundle.manifest.preprocess.channels
    shape = (-1, channels, height, width)
    return ModelMetadata(
        name=model_name(service.model),
        versions=(service.model.sha256[:12],),
        platform=f"edgecls_{predictor.backend}",
        inputs=(TensorMetadata(name=INPUT, datatype="FP32", shape=shape),),
        outputs=(TensorMetadata(name=OUTPUT, datatype="FP32", shape=(-1, service.model.classes)),),
    )


def _decode(body: bytes, header_length: str | None) -> tuple[InferRequest, Tensor]:
    """Return a request and its tensor, (N, C, H, W) as far as it says so."""
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal()):
            raise _bad(f"{_HEADER_LENGTH} is {header_length!r}, expected a number of bytes")
        length = int(header_length[:20])
    try:
        asked = msgspec.json.decode(body[:length], type=InferRequest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _bad(f"the body is not as expected: {error}") from error
    if len(asked.inputs) != 1 or asked.inputs[0].name != INPUT:
        raise _bad(f"expected one input, {INPUT!r}")
    if any(output.name != OUTPUT for output in asked.outputs or ()):
        raise _bad(f"expected the output {OUTPUT!r}, or none named")
    given = asked.inputs[0]
    if given.datatype != "FP32":
        raise _bad(f"expected datatype FP32, found {given.datatype!r}")
    if len(given.shape) != 4 or min(given.shape) < 1 or max(given.shape) > 1 << 20:
        raise _bad(f"expected shape [N, C, H, W], found {list(given.shape)}")
    values = _values(given, body[length:])
    wanted = int(np.prod([int(size) for size in given.shape], dtype=object))
    if values.size != wanted:
        raise _bad(f"shape {list(given.shape)} has {wanted} values, found {values.size}")
    return asked, values.reshape(given.shape)


def _values(given: InferInput, behind: bytes) -> Tensor:
    size = given.parameters.get("binary_data_size")
    if size is not None:
        if given.data is not None or size != len(behind) or len(behind) % 4:
            raise _bad(f"binary_data_size is {size!r}, behind the JSON are {len(behind)} bytes")
        return np.frombuffer(behind, "<f4").astype(np.float32)
    if given.data is None or behind:
        raise _bad("expected 'data', or binary_data_size and the bytes behind the JSON")
    try:
        values = np.asarray(given.data)
    except ValueError as error:  # rows of different lengths
        raise _bad(f"'data' is no tensor: {error}") from error
    if values.dtype.kind not in "iuf":
        raise _bad("'data' holds something else than numbers")
    with np.errstate(over="ignore"):  # what float32 does not hold is refused as infinite
        return values.astype(np.float32)


def _answer(asked: InferRequest, logits: Logits, name: str, version: str) -> Response:
    by_default = asked.parameters.get("binary_data_output", False) is True
    wanted = asked.outputs[0].parameters if asked.outputs else {}
    binary = wanted.get("binary_data", by_default) is True
    data = logits.astype("<f4").tobytes()
    output = InferOutput(
        name=OUTPUT,
        datatype="FP32",
        shape=logits.shape,
        parameters={"binary_data_size": len(data)} if binary else {},
        data=None if binary else logits.ravel().tolist(),
    )
    head = msgspec.json.encode(
        InferResponse(model_name=name, model_version=version, outputs=(output,), id=asked.id)
    )
    if not binary:
        return Response(head, media_type="application/json")
    return Response(
        head + data,
        media_type="application/octet-stream",
        headers={"Inference-Header-Content-Length": str(len(head))},
    )


def _bad(message: str) -> RequestError:
    return RequestError(400, "bad_request", message)


def _json(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
