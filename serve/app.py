"""The application: paths, what they answer, and the guard around them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from ..core.errors import EdgeclsError, ImageError
from ..core.version import VERSION
from .bodies import is_image, read_body, uploads_of
from .card import model_card
from .errors import RequestError, internal
from .field import field_sketch
from .guard import Guard, answer_to
from .inference_protocol import inference_protocol
from .metrics import metrics_text
from .openapi import PREDICT_BODY, PREDICTIONS_EXAMPLE, answers, components
from .service import Service

_STATIC: Final = Path(__file__).parent / "static"
TOPK: Final = 5
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


def create_app(service: Service) -> ASGIApp:
    """Return the application around a service, which it closes when it ends."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="edgecls",
        version=VERSION,
        summary="An image classifier, as its bundle was exported and verified.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # It would send a client to whatever host its own header names.
        redirect_slashes=False,
    )
    _add_errors(app)
    _add_paths(app, service)
    app.include_router(inference_protocol(service))
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    app.openapi = lambda: _document(app, service)  # type: ignore[method-assign]
    return Guard(_Shortcut(app, service), settings=service.settings, counts=service.counts)


class _Shortcut:
    """Answers the request that matters without what FastAPI does for any other.

    Its layers, its routes and its validation take 0.3 ms, as long as a small model. A request whose
    query has to be validated takes the long way.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["path"] == "/v1/predict"
            and scope["method"] == "POST"
            and not scope["query_string"]
        ):
            request = Request(scope, receive)
            response = await answer_predict(self._service, request, TOPK)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _add_paths(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_STATIC / "index.html")

    @app.post(
        "/v1/predict",
        openapi_extra={"requestBody": PREDICT_BODY},
        responses=answers(
            "Predictions", 400, 401, 403, 408, 413, 415, 422, 503, example=PREDICTIONS_EXAMPLE
        ),
    )
    async def predict(request: Request, topk: Annotated[int, Query(ge=1)] = TOPK) -> Response:
        """Classify one image or several, in their order.

        Each answer is what `edgecls predict --json` prints, with the time in the queue. An image
        that cannot be used does not stop the others; where none can be used, the status is 422.
        """
        return await answer_predict(service, request, topk)

    @app.get("/v1/model", responses=answers("ModelCard", 401))
    async def model() -> Response:
        """Say what answers: labels, preprocessing, precision, provenance, limits."""
        return _json(msgspec.json.encode(model_card(service.model, service.settings)))

    @app.get("/v1/field", responses=answers("FieldSketch", 401))
    async def field() -> Response:
        """Give the sketch of the images seen, to compare with the calibration's fingerprint."""
        return _json(msgspec.json.encode(field_sketch(service.counts, service.model)))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answer as long as the process runs."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """Say which bundle answers; a server that answers has a verified one."""
        return {"status": "ready", "bundle_sha256": service.model.sha256}

    @app.get("/metrics", response_class=Response, responses={200: {"content": {_TEXT: {}}}})
    async def metrics() -> Response:
        """Give the counts of all processes in Prometheus' text format."""
        return Response(metrics_text(service), headers={"content-type": _TEXT})


def _add_errors(app: FastAPI) -> None:
    """Give every error the one form; what is a fault of ours is logged, not shown."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, EdgeclsError)
        return _error(request, answer_to(error, request.url.path))

    async def of_query(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return _error(request, RequestError(400, "bad_request", f"{where}: {first['msg']}"))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        answer = _error(request, RequestError(error.status_code, code, str(error.detail).lower()))
        answer.headers.update(error.headers or {})
        return answer

    async def unexpected(request: Request, _: Exception) -> Response:
        return _error(request, internal())

    app.add_exception_handler(EdgeclsError, ours)
    app.add_exception_handler(RequestValidationError, of_query)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Exception, unexpected)


def _document(app: FastAPI, service: Service) -> dict[str, Any]:
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        for path in found["paths"].values():
            for operation in path.values():
                # FastAPI's own form of it, which is not sent.
                if operation["responses"].get("422", {}).get("description") == "Validation Error":
                    del operation["responses"]["422"]
        schemas = {**found.get("components", {}).get("schemas", {}), **components()}
        found["components"] = {"schemas": schemas}
        if service.settings.api_key is not None:
            keys = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
            found["components"]["securitySchemes"] = {"key": keys}
            found["security"] = [{"key": []}]
        app.openapi_schema = found
    return app.openapi_schema


def _error(request: Request, error: RequestError) -> Response:
    return Response(
        error.body(request.url.path),
        error.status,
        headers=error.headers,
        media_type="application/json",
    )


async def answer_predict(service: Service, request: Request, topk: int) -> Response:
    """Return the answer to the images in a request.

    Raises:
        RequestError: There is none.
    """
    with service.admitted():
        body = await read_body(request, service.settings)
        kind = request.headers.get("content-type", "")
        if is_image(kind):  # nothing to parse: a thread would only cost time
            uploads = uploads_of(kind, body, service.settings)
        else:
            uploads = await service.parse(uploads_of, kind, body, service.settings)
    found = await service.predict(uploads, topk)
    lines = [
        {"image": upload.name, "error": each.reason}
        if isinstance(each, ImageError)
        else each.to_dict()
        for upload, each in zip(uploads, found, strict=True)
    ]
    unusable = [each for each in found if isinstance(each, ImageError)]
    if len(unusable) == len(found):
        raise RequestError(422, "unusable_image", str(unusable[0]), predictions=tuple(lines))
    return _json(msgspec.json.encode({"predictions": lines}))


def _json(data: bytes) -> Response:
    return Response(data, media_type="application/json")
