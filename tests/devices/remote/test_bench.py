"""``bench --on`` against a real OpenSSH server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecls.core.files import sha256_bytes, sha256_file

from .conftest import SSHD, Server

if TYPE_CHECKING:
    from ...conftest import Command

pytestmark = [pytest.mark.skipif(SSHD is None, reason="sshd is not installed"), pytest.mark.slow]


def test_two_devices_measure_the_images_that_they_are_sent(
    server: Server, edgecls: Command, pi_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "edgecls.toml"
    entry = server.entry().items()
    file.write_text("\n".join(["[devices.kitchen]", *(f"{k} = {json.dumps(v)}" for k, v in entry),
                               "[bench]", "runs = 3", "processes = 2"]))  # fmt: skip
    broken = tmp_path / "photos" / "broken.png"
    names = [path for path in photos if not path.name.startswith("-") and path != broken]
    done = edgecls("bench", pi_bundle, *names, "--warmup", 0, "--threads", 1, "--json",
                   "--on", "kitchen", "--on", "here", "-c", file)  # fmt: skip
    lines = {line["device"]: line for line in map(json.loads, done.out.splitlines())}

    assert done.code == 0, done.err
    assert list(lines) == ["kitchen", "here"]
    expected = sha256_bytes("".join(map(sha256_file, names)).encode())
    for line in lines.values():
        found = line["result"]
        assert (found["images"], found["images_sha256"]) == (len(names), expected)
        assert (found["runs"], found["warmup"], len(found["processes"])) == (3, 0, 2)
    cached = {path.stem for path in (server.cache / "images").iterdir()}
    assert cached == {sha256_file(path) for path in names}
    refused = edgecls("bench", pi_bundle, broken, "--on", "kitchen", "-c", file)
    assert refused.code == 4
    assert f"{broken}: not an image" in refused.err


def test_a_device_that_throttled_counts_as_a_failed_check(
    edgecls: Command, pi_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "vcgencmd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'throttled=0x4'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    out = tmp_path / "a.json"
    done = edgecls("bench", pi_bundle, "--runs", 2, "--processes", 1, "--threads", 1,
                   "--on", "here", "-o", out)  # fmt: skip

    assert done.code == 1
    assert json.loads(out.read_bytes())["invalid"] == ["throttled: throttled"]
    assert "invalid: the board slowed down meanwhile" in done.out
