"""From a request's body to the images in it; the body is small and whole before it is looked at."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Annotated, Any, Final

import msgspec
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ..core.text import as_utf8
from .errors import RequestError
from .service import Upload
from .settings import Settings

RAW_TYPES: Final = (
    "image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff",
    "image/x-portable-anymap", "application/octet-stream",
)  # fmt: skip
_MAX_NAME: Final = 1024


class EncodedImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image in JSON.

    Attributes:
        data: The file's bytes in Base64.
        name: What the answer calls it.
    """

    data: str
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_NAME)] = "image"


class EncodedImages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON request: one or more images."""

    images: Annotated[list[EncodedImage], msgspec.Meta(min_length=1)]


async def read_body(request: Request, settings: Settings) -> bytes:
    """Return a request's body.

    Raises:
        RequestError: It is longer than is allowed (413, before it is read where it says so), or
            it does not arrive in time (408), or its sender leaves (400).
    """
    most = settings.max_upload_bytes
    too_large = RequestError(413, "too_large", f"the body is larger than {most} bytes, the most")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise too_large

    async def collect() -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise too_large
        return bytes(body)

    try:
        return await asyncio.wait_for(collect(), settings.timeout_s)
    except ClientDisconnect as error:  # nobody hears it, but it is counted
        raise RequestError(400, "cut_off", "the body is shorter than announced") from error
    except asyncio.TimeoutError as error:
        raise RequestError(
            408, "slow_body", f"the body did not arrive within {settings.timeout_s:g} s"
        ) from error


def uploads_of(content_type: str, body: bytes, settings: Settings) -> list[Upload]:
    """Return the images in a body.

    Args:
        content_type: As the request's header says it.
        body: The body, whole.
        settings: How many there may be.

    Raises:
        RequestError: Another type (415), not what its type says (400), or too many images (413).
    """
    # A name of ours, so that a type with a parameter (charset, boundary) is known too.
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = _from_multipart(content_type, body, settings.max_images)
    elif kind == "application/json":
        found = _from_json(body)
    elif kind in RAW_TYPES:
        found = [Upload("image", body)]
    else:
        raise RequestError(
            415, "unknown_type", f"expected multipart/form-data, application/json or one of "
            f"{', '.join(RAW_TYPES)}, found {as_utf8(kind)!r}",
        )  # fmt: skip
    if not found:
        raise RequestError(400, "bad_request", "expected one image or more, found none")
    if len(found) > settings.max_images:
        raise RequestError(
            413, "too_many_images",
            f"{len(found)} images, the most in a request is {settings.max_images}",
        )  # fmt: skip
    return found


def _from_json(body: bytes) -> list[Upload]:
    try:
        asked = msgspec.json.decode(body, type=EncodedImages)
        return [
            Upload(as_utf8(image.name), base64.b64decode(image.data, validate=True))
            for image in asked.images
        ]
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RequestError(400, "bad_request", f"the body is not as expected: {error}") from error
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, "bad_request", f"'data' is no Base64: {error}") from error


def _from_multipart(content_type: str, body: bytes, most: int) -> list[Upload]:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise RequestError(400, "bad_request", "multipart/form-data without a boundary")
    parts = _Parts(most)
    try:
        parser = MultipartParser(boundary, parts.callbacks)
        parser.write(body)
        parser.finalize()
    except (FormParserError, UnicodeError, ValueError) as error:
        raise RequestError(400, "bad_request", f"damaged multipart body: {error}") from error
    if not parts.ended:
        raise RequestError(400, "bad_request", "the multipart body is cut off")
    return parts.found


class _Parts:
    """Takes what the parser finds; kept in memory, which the body's limit bounds."""

    def __init__(self, most: int) -> None:
        self.found: list[Upload] = []
        self.ended = False
        self._most = most
        self._field = self._value = self._disposition = b""
        self._data: list[bytes] = []

    @property
    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._end_header,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._field = self._value = self._disposition = b""
        self._data = []

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            raise RequestError(
                400, "bad_request", "a part of the multipart body has no file name: send images as "
                "files, topk in the query",
            )  # fmt: skip
        if len(self.found) >= self._most:
            raise RequestError(
                413, "too_many_images", f"the most images in a request is {self._most}"
            )
        name = options[b"filename"].decode("utf-8", "backslashreplace")[:_MAX_NAME]
        self.found.append(Upload(name or "image", b"".join(self._data)))

    def _finish(self) -> None:
        self.ended = True
