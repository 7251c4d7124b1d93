"""What goes wrong with a request, and the one JSON form of every error."""

from __future__ import annotations

from typing import Final

import msgspec

from ..core.errors import BadInputError, EdgeclsError, ImageError
from .protocol_types import ProtocolError

# A name that a client made up may be as long as its body: it is not sent back whole.
_MAX_MESSAGE: Final = 2000


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong.

    Attributes:
        code: For programs; stays the same where the message gets better.
        message: For people: what was expected, what was found, what to do.
    """

    code: str
    message: str


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every answer that is no success.

    Attributes:
        error: What went wrong.
        predictions: Where none of a request's images can be used: why, for each.
    """

    error: ErrorInfo
    predictions: tuple[dict[str, str], ...] = ()


class RequestError(BadInputError):
    """A request that is answered with an error.

    Attributes:
        status: Of HTTP.
        code: See ``ErrorInfo``.
        retry_after_s: When it is worth to come again; None where that would not help.
        predictions: See ``ErrorBody``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        predictions: tuple[dict[str, str], ...] = (),
    ) -> None:
        super().__init__(
            message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]} ..."
        )
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.predictions = predictions

    def body(self, path: str) -> bytes:
        """Return the answer's body; the Open Inference Protocol has a form of its own."""
        if path.startswith("/v2"):
            return msgspec.json.encode(ProtocolError(error=str(self)))
        info = ErrorInfo(code=self.code, message=str(self))
        return msgspec.json.encode(ErrorBody(error=info, predictions=self.predictions))

    @property
    def headers(self) -> dict[str, str]:
        """The answer's own headers."""
        found: dict[str, str] = {}
        if self.retry_after_s is not None:
            found["retry-after"] = str(self.retry_after_s)
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        return found


def overloaded(message: str, retry_after_s: int) -> RequestError:
    """Return the intended 503: the request was refused whole, and may be sent again."""
    return RequestError(503, "overloaded", message, retry_after_s=retry_after_s)


def internal() -> RequestError:
    """Return what a client may know of a fault of ours: nothing but that it is one."""
    return RequestError(500, "internal", "the server failed; its log says how")


def as_request_error(error: EdgeclsError) -> RequestError:
    """Return the answer to an error of any room."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ImageError):
        return RequestError(422, "unusable_image", str(error))
    if type(error) is BadInputError:
        return RequestError(400, "bad_request", str(error))
    return internal()
