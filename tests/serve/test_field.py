"""From a server's own counts to the verdict on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .process import running

if TYPE_CHECKING:
    from ..conftest import Command, Digits

KEY = "0123456789abcdef"


@pytest.mark.slow
def test_a_running_server_is_asked(
    edgecls: Command, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = digits.bundle("raspberry-pi")
    with running(bundle, EDGECLS_API_KEY=KEY) as server, server.client() as client:
        ask = ["drift", "--field", server.url, "--bundle", bundle]
        key = {"x-api-key": KEY}
        assert edgecls(*ask).code == 2
        monkeypatch.setenv("EDGECLS_API_KEY", KEY)
        nothing = edgecls(*ask)
        for image in sorted((digits.judged).rglob("*.png"))[:200]:
            sent = client.post(
                "/v1/predict", content=image.read_bytes(),
                headers={"content-type": "image/png", **key},
            )  # fmt: skip
            assert sent.status_code == 200
        some = edgecls(*ask, "--json")
        file = tmp_path / "field.json"
        file.write_bytes(client.get("/v1/field", headers=key).content)

    assert nothing.code == 5, nothing.err
    assert "0 images of the field" in nothing.out
    found = json.loads(some.out)
    kept = json.loads(edgecls("drift", "--field", file, "--bundle", bundle, "--json").out)
    assert found["field_images"] == 200
    assert found.pop("field") == server.url
    assert kept.pop("field") == str(file)
    assert found == kept
    # Sorted by class: the first 200 are of few.
    assert some.code == 1
