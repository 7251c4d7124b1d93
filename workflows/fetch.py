"""Asks a server of ours for something small, by the standard library alone."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from ..core.errors import BadInputError, DeviceError, UsageError
from ..serve.settings import KEY_VARIABLE, find_api_key

_CHUNK: Final = 1 << 16


def is_url(text: str) -> bool:
    """Whether it is an address, be it of another kind than a server's, and no file."""
    return "://" in text


def fetch(url: str, *, path: str, most_bytes: int, timeout_s: float) -> bytes:
    """Return what a server answers to a GET, with the key of ``$EDGECLS_API_KEY`` if there is one.

    It is asked itself, without a proxy, and may not send us on: the key is for nobody else.

    Args:
        url: Its address; without a path of its own it is asked for ``path``.
        path: What it is asked for.
        most_bytes: The most that is read.
        timeout_s: For all of it.

    Raises:
        BadInputError: It answers with an error, or with too much.
        DeviceError: It cannot be reached, or does not answer in time.
        UsageError: It wants another key, or the address is none.
    """
    request = urllib.request.Request(_address(url, path))  # noqa: S310 - http or https
    key = find_api_key(None)
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay)
    until = time.monotonic() + timeout_s
    data = bytearray()
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            while chunk := answer.read1(_CHUNK):
                data += chunk
                if len(data) > most_bytes:
                    raise BadInputError(f"{url}: answers with more than {most_bytes} bytes")
                if time.monotonic() > until:
                    raise TimeoutError
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 401:
            raise UsageError(
                f"{url}: the server wants its API key; set ${KEY_VARIABLE} to it"
            ) from error
        raise BadInputError(
            f"{url}: expected what GET {path} answers, found status {error.code}; give the address "
            "of an edgecls serve"
        ) from error
    except TimeoutError as error:
        raise DeviceError(f"{url}: no answer within {timeout_s:g} s; is it overloaded?") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise DeviceError(f"{url}: no answer within {timeout_s:g} s") from error
        raise DeviceError(f"{url}: cannot be reached: {reason}; does the server run?") from error
    return bytes(data)


def _address(url: str, path: str) -> str:
    try:
        parts = urlsplit(url)
        named = parts.hostname is not None and parts.port != 0  # reading the port checks it
        (parts.hostname or "").encode("idna")  # as connecting does, which checks the name
    except ValueError:
        named = False
    if (
        not named
        or parts.scheme not in {"http", "https"}
        or parts.username is not None
        or any(not 32 < ord(letter) < 127 for letter in url)
    ):
        raise UsageError(f"expected an address as http://HOST:PORT in ASCII, found {url!r}")
    asked = parts.path if parts.path.strip("/") else path
    return urlunsplit((parts.scheme, parts.netloc, asked, parts.query, ""))


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes an answer that sends us elsewhere for the error that it is here."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""
