"""Errors: what they say survives the way between processes."""

from __future__ import annotations

import copy

import pytest

from edgecls.core.errors import (
    DataError,
    EdgeclsError,
    ImageError,
    MissingPackageError,
    UnsupportedOperatorError,
)


@pytest.mark.parametrize(
    "error",
    [
        DataError("a folder"),
        ImageError("a.png", "cut short"),
        MissingPackageError("torch", "export"),
        UnsupportedOperatorError(operator="Loop", node="n", found="a loop", fix="unroll it"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_from_another_process(error: EdgeclsError) -> None:
    found = copy.deepcopy(error)  # goes by what pickle goes by

    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.args == error.args
    assert vars(found) == vars(error)
    assert found.exit_code == error.exit_code
