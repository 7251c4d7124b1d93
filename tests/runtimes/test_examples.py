"""The scripts that users copy run as they stand."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from edgecls.runtimes import load

from .conftest import encoded, photo

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_predict_one(pi_bundle: Path, tmp_path: Path) -> None:
    image = tmp_path / "photo.png"
    image.write_bytes(encoded(photo()))

    done = run("predict_one.py", pi_bundle, image)

    assert done.returncode == 0, done.stderr
    best = load(pi_bundle).predict(image).top1
    assert done.stdout.splitlines()[0].endswith("on litert (int8)")
    assert done.stdout.splitlines()[1].split() == [f"{best.score:.2%}", best.label]


def test_predict_folder(pi_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for name in ("b.png", "inner/c.png"):
        (folder / name).write_bytes(encoded(photo()))
    (folder / "a.txt").write_text("no image")

    done = run("predict_folder.py", pi_bundle, folder)

    assert done.returncode == 4
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [Path(row["file"]).name for row in rows] == ["b.png", "c.png"]
    assert {row["label"] for row in rows} == {load(pi_bundle).predict(photo()).top1.label}
    assert f"{folder / 'a.txt'}: not an image" in done.stderr


def test_predict_frames(pi_bundle: Path) -> None:
    done = run("predict_frames.py", pi_bundle, "pattern", 12)

    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [str(n) for n in range(1, 13)]


@pytest.mark.parametrize("script", sorted(file.name for file in EXAMPLES.glob("*.py")))
def test_every_example_says_how_it_is_used(script: str) -> None:
    done = run(script)

    assert done.returncode == 1
    assert f"python {script} BUNDLE" in done.stderr
