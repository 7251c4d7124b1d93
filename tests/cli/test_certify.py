"""``edgecls certify`` on this machine, as if it were two people's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..conftest import Command, Digits

pytest.importorskip("asyncssh")


@pytest.fixture
def photos(digits: Digits, tmp_path: Path) -> Path:
    """110 digits, and one file that is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    files = sorted(digits.judged.rglob("*.png"))[:110]
    for index, file in enumerate(files):
        (folder / f"{index}.png").write_bytes(file.read_bytes())
    return folder


def test_two_people_with_the_same_file(
    edgecls: Command, digits: Digits, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    bundle = digits.bundle("raspberry-pi")
    command = ["certify", bundle, "--on", "here", "--data", photos, "-o"]
    mine, page = tmp_path / "mine.json", tmp_path / "both.html"
    alone = edgecls(*command, mine)
    both = edgecls(*command, page, "--against", mine, "--json")
    (photos / "broken.png").write_bytes(b"no image")
    some = edgecls(*command, tmp_path / "some.json")
    fewer = edgecls(*command, tmp_path / "fewer.json", "--against", mine, "--images", "5")

    assert (alone.code, both.code, some.code, fewer.code) == (0, 0, 4, 4), alone.err + both.err
    assert "passed" in alone.out
    found = json.loads(both.out)
    (pair,) = found["pairs"]
    assert pair["identical"] is True
    assert pair["agreed"] == len(found["images"])
    assert pair["check"]["outcome"] == found["outcome"] == "passed"
    assert [device["name"] for device in found["devices"]] == ["here (mine.json)", "here"]
    assert found["devices"][0]["versions"].keys() >= {"edgecls", "python", "pillow", "numpy"}
    assert str(tmp_path) not in mine.read_text()
    assert "equal bit for bit" in page.read_text()
    assert json.loads((tmp_path / "some.json").read_text())["skipped"][0]["image"] == "broken.png"
    assert "other images" in fewer.err
    assert not (tmp_path / "fewer.json").exists()


def test_another_precision_is_not_the_same_bundle(
    edgecls: Command, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    mine = tmp_path / "mine.json"
    pi, jetson = digits.bundle("raspberry-pi"), digits.bundle("jetson")
    first = edgecls("certify", pi, "--on", "here", "-o", mine)
    other = edgecls("certify", jetson, "--on", "here", "--allow-fallback", "--against", mine,
                    "-o", tmp_path / "both.json")  # fmt: skip

    assert first.code == 0
    assert "on other images they were not compared" in " ".join(first.out.split())
    assert other.code == 4
    assert "another bundle" in other.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--on here"),
        (["--on", "here", "--images", "3"], "--data"),
        (["--on", "here", "--min-agreement", "101"], "min-agreement"),
        (["--on", "nowhere"], "no device is called 'nowhere'"),
    ],
)
def test_refusals(edgecls: Command, digits: Digits, tmp_path: Path, more: list[str], message: str,
                  ) -> None:  # fmt: skip
    out = tmp_path / "c.json"
    done = edgecls("certify", digits.bundle("raspberry-pi"), "-o", out, *more)

    assert done.code == 2
    assert message in done.err
    assert not out.exists()


def test_another_ending_is_refused(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    done = edgecls(
        "certify", digits.bundle("raspberry-pi"), "--on", "here", "-o", tmp_path / "c.md"
    )

    assert done.code == 2
    assert "expected a name that ends in .json or .html, found .md" in done.err
