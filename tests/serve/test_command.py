"""The command before it serves: what it asks for, and what it says is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecls.serve.settings import KEY_VARIABLE

if TYPE_CHECKING:
    from ..conftest import Command


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "python_multipart", "prometheus_client"])
def test_a_missing_library_is_named(
    edgecls: Command, pi_bundle: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    done = edgecls("serve", pi_bundle)

    assert done.code == 3
    assert module in done.err
    assert "pip install 'edgecls[serve]'" in done.err


def test_options_that_contradict_each_other(edgecls: Command, pi_bundle: Path) -> None:
    done = edgecls("serve", pi_bundle, "--queue", 4, "--max-images", 5)

    assert done.code == 2
    assert "--queue" in done.err


def test_a_poor_key_does_not_start(
    edgecls: Command, pi_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "guess")

    done = edgecls("serve", pi_bundle)

    assert done.code == 2
    assert f"${KEY_VARIABLE}: expected an API key of 16" in done.err
    assert "guess" not in done.err
