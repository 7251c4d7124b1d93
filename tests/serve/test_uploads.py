"""Uploads that nobody meant: mutated ones, and what the OpenAPI document leads a fuzzer to."""

from __future__ import annotations

import io
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from ..runtimes.conftest import photo
from .process import Running, running

ALLOWED = {200, 400, 408, 413, 415, 422, 503}
# Above what the first thousand needed: caches of Pillow, of the allocator, of each thread.
GROWTH_BYTES = 32 << 20


def originals() -> list[bytes]:
    """Return a file of each format that is read, small enough to be mutated often."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    found = []
    for image in (Image.fromarray(photo()), Image.fromarray(noise)):
        for kind, options in (
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("PNG", {}),
            ("WEBP", {}),
            ("WEBP", {"lossless": True}),
            ("GIF", {}),
            ("BMP", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("PPM", {}),
        ):
            file = io.BytesIO()
            image.save(file, kind, **options)  # type: ignore[arg-type]
            found.append(file.getvalue())
    return found


def mutated(source: random.Random, files: list[bytes]) -> bytes:
    """Return a file with bytes changed, removed, repeated, or another's in its middle."""
    data = bytearray(source.choice(files))
    for _ in range(source.choice((1, 1, 2, 5, 20))):
        at = source.randrange(len(data) + 1)
        length = source.choice((1, 1, 2, 4, 64, len(data)))
        kind = source.randrange(6)
        if kind == 0:
            data[at : at + length] = source.randbytes(length)
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length]
        elif kind == 3:
            other = source.choice(files)
            data[at:] = other[at : at + length]
        elif kind == 4 and at < len(data):
            data[at] ^= 1 << source.randrange(8)
        else:
            # Sizes stand near the beginning, and are what a reader believes.
            at = source.randrange(min(len(data), 40) + 1)
            data[at : at + 4] = source.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")
            )
        if not data:
            break
    return bytes(data)


def request(source: random.Random, files: list[bytes]) -> dict[str, Any]:
    """Return a request around mutated files; sometimes the request itself is mutated."""
    image = mutated(source, files)
    kind = source.randrange(10)
    if kind < 5:
        return {"content": image, "headers": {"content-type": "image/png"}}
    if kind < 8:
        count = source.choice((1, 2, 3))
        sent = [("image", ("a", mutated(source, files))) for _ in range(count)]
        return {"files": sent}
    built = httpx2.Request("POST", "http://x/", files=[("image", ("a", image))])
    body = mutated(source, [built.read()])
    return {"content": body, "headers": {"content-type": built.headers["content-type"]}}


def post_all(server: Running, count: int) -> Counter[int]:
    source, files = random.Random(count), originals()
    statuses: Counter[int] = Counter()
    with server.client() as client:
        workers = server.children()
        warm = 0
        for number in range(count):
            statuses[client.post("/v1/predict", **request(source, files)).status_code] += 1
            if number == min(count // 2, 1000):
                warm = server.rss_bytes()
        grown = server.rss_bytes() - warm
        assert server.children() == workers, "a process was ended"
    assert grown < GROWTH_BYTES, f"memory grew by {grown >> 20} MiB"
    return statuses


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(1_000, marks=pytest.mark.slow),
        pytest.param(10_000, marks=pytest.mark.nightly),
    ],
)
def test_mutated_uploads(pi_bundle: Path, count: int) -> None:
    with running(pi_bundle) as server:
        statuses = post_all(server, count)

    print(dict(statuses))
    assert set(statuses) <= ALLOWED
    assert statuses[200] > count // 20  # some survive it
    assert statuses[422] > count // 20
    # libtiff writes lines of its own from C; none of ours, and no traceback, may be among them.
    ours = ("ERROR: ", "WARNING: ", "Traceback ", "error: ")
    assert [line for line in server.log if line.startswith(ours)] == []


@pytest.mark.slow
def test_every_nasty_file(pi_bundle: Path, edgecls_data: Path) -> None:
    with running(pi_bundle) as server, server.client() as client:
        workers = server.children()
        statuses = {
            file.name: client.post(
                "/v1/predict", files={"image": (file.name, file.read_bytes())}
            ).status_code
            for file in sorted((edgecls_data / "nasty").iterdir())
            if file.is_file()
        }
        assert server.children() == workers

    assert set(statuses.values()) == {200, 422}
    assert statuses["bomb_30000x30000.png"] == 422
    assert "".join(server.log) == ""


@pytest.mark.slow
def test_what_the_document_says_is_true(pi_bundle: Path) -> None:
    """Requests that a fuzzer makes of the OpenAPI document get answers that it names."""
    schemathesis = pytest.importorskip("schemathesis")
    import hypothesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as conforming

    checks = [
        not_a_server_error,
        conforming.status_code_conformance,
        conforming.content_type_conformance,
        conforming.response_schema_conformance,
    ]
    with running(pi_bundle) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        tried = 0
        for result in schema.get_all_operations():
            operation = result.ok()

            @hypothesis.settings(
                max_examples=25,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy())
            def answers(case: Any) -> None:
                nonlocal tried
                tried += 1
                case.call_and_validate(checks=checks)

            answers()

    assert tried > 100
    assert "".join(server.log) == ""
