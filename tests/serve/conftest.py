"""A server in this process over the smallest real classifier."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from edgecls.runtimes import load
from edgecls.serve.app import create_app
from edgecls.serve.counts import Counts
from edgecls.serve.model import open_model
from edgecls.serve.service import Service
from edgecls.serve.settings import Settings

from ..runtimes.conftest import (  # noqa: F401
    jetson_bundle,
    make_bundle,
    onnx_float,
    pi_bundle,
    tflite_float,
    tflite_int8,
    weights,
)

Serve = Callable[..., "Server"]


class Server(TestClient):
    """A client of a server, and the service behind it."""

    service: Service


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a bundle in this process; what is not given has its default."""
    with contextlib.ExitStack() as stack:

        def start(bundle: Path, *, backend: Any = None, **settings: Any) -> Server:
            made = Settings(**settings)
            model = open_model(lambda: load(bundle, backend=backend))
            service = Service(model, made, Counts(1))
            client = Server(create_app(service))
            client.service = service
            return stack.enter_context(client)

        yield start


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def without_times(prediction: dict[str, Any]) -> dict[str, Any]:
    """Return what ``predict --json`` prints but for the times, which differ each time."""
    assert all(value >= 0 for value in prediction["speed_ms"].values())
    return {key: value for key, value in prediction.items() if key != "speed_ms"}
