"""Fixtures for every room's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def edgecls_data() -> Path:
    """The folder of real photos and weights; tests that use it are skipped where it is absent."""
    value = os.environ.get("EDGECLS_DATA", "")
    if not value:
        pytest.skip("EDGECLS_DATA is not set")
    path = Path(value).resolve()
    assert path.is_dir(), f"EDGECLS_DATA={value} is no folder"
    return path
