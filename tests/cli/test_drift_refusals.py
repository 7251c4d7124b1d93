"""``edgecls drift`` refuses what would be compared, kept, overwritten or ignored wrongly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgecls.runtimes.logits_file import LogitsFile, LogitsHeader, write_logits

if TYPE_CHECKING:
    from ..conftest import Command, Digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SWAPPED = ("zero", "one", "two", "eight", "four", "five", "six", "seven", "three", "nine")


def rewritten(
    source: Path, target: Path, labels: tuple[str, ...] | None,
    keep: Callable[[str], bool] = lambda name: True,
) -> Path:  # fmt: skip
    """Write the same logits under other class names, of some of the images."""
    file = LogitsFile(source)
    header: LogitsHeader = msgspec.structs.replace(file.header, labels=labels, synsets=None)
    with write_logits(target, header) as writer:
        for name, digest in filter(lambda image: keep(image[0]), file.images):
            writer.add(name, digest, file.logits([digest])[0].tolist())
    return target


def wrong_half(source: Path, target: Path) -> Path:
    """Write logits whose every second answer is wrong."""
    file = LogitsFile(source)
    with write_logits(target, file.header) as writer:
        for place, (name, digest) in enumerate(file.images):
            row = file.logits([digest])[0]
            writer.add(name, digest, (-row if place % 2 else row).tolist())
    return target


def test_a_swapped_label_map_is_refused(edgecls: Command, recorded: Path, tmp_path: Path) -> None:
    one = rewritten(recorded / "pi.logits", tmp_path / "one.logits", NAMES)
    two = rewritten(recorded / "pi.logits", tmp_path / "two.logits", SWAPPED)
    kept = edgecls("drift", one, "--save-baseline", tmp_path / "one.json")
    for arguments in (
        [two, "--reference", one], [two, one], [two, "--baseline", tmp_path / "one.json"],
    ):  # fmt: skip
        done = edgecls("drift", *arguments)

        assert (kept.code, done.code) == (0, 4), done.err
        assert "class 3 is" in done.err
        assert "--explain" in done.err
    assert edgecls("drift", one, "--reference", one).code == 0


def test_one_side_without_class_names_is_said(
    edgecls: Command, recorded: Path, tmp_path: Path
) -> None:
    one = rewritten(recorded / "pi.logits", tmp_path / "one.logits", NAMES)
    none = rewritten(recorded / "pi.logits", tmp_path / "none.logits", None)
    done = edgecls("drift", one, "--reference", none, "--json")
    quiet = edgecls("drift", none, "--reference", none, "--json")

    assert done.code == quiet.code == 0, done.err
    assert f"{none} names no classes" in json.loads(done.out)["truth"]
    assert "names no classes" not in json.loads(quiet.out)["truth"]


def test_only_a_run_that_passed_becomes_the_baseline(
    edgecls: Command, recorded: Path, tmp_path: Path
) -> None:
    good, bad = recorded / "pi.logits", wrong_half(recorded / "pi.logits", tmp_path / "bad.logits")
    failed = edgecls("drift", bad, "--reference", good, "--save-baseline", tmp_path / "bad.json")
    passed = edgecls("drift", good, "--reference", good, "--save-baseline", tmp_path / "new.json")

    assert (failed.code, passed.code) == (1, 0), failed.err
    assert "bad.json: not written, the verdict is failed" in failed.err
    assert not (tmp_path / "bad.json").exists()
    assert (tmp_path / "new.json").exists()


def test_a_baseline_of_a_folder_with_an_unreadable_image_can_be_used(
    edgecls: Command, digits: Digits, recorded: Path, tmp_path: Path
) -> None:
    data, file = tmp_path / "data", tmp_path / "baseline.json"
    shutil.copytree(recorded / "data", data)
    broken = next(data.rglob("*.png")).with_name("broken.png")
    broken.write_bytes(b"no image")
    command = ["drift", digits.bundle("raspberry-pi"), "--data", data]
    made = edgecls(*command, "--save-baseline", file)
    done = edgecls(*command, "--baseline", file)
    shutil.copy(next(recorded.rglob("*.png")), broken)
    repaired = edgecls(*command, "--baseline", file)

    assert (made.code, done.code, repaired.code) == (4, 4, 4)
    assert "passed (confidence 95 %)" in done.out, done.err
    assert "broken.png" in done.out
    assert "could not be read then, and can now" in repaired.err


def test_recorded_images_of_one_class_keep_their_class(
    edgecls: Command, recorded: Path, tmp_path: Path
) -> None:
    first = LogitsFile(recorded / "pi.logits").images[0][0].split("/")[0]
    file = rewritten(
        recorded / "pi.logits", tmp_path / "one.logits", None, lambda name: name.startswith(first)
    )
    done = edgecls("drift", file, "--reference", file, "--json")
    found = json.loads(done.out)

    assert "N_name" in found["truth"], done.err
    assert found["summary"]["top1_drop"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plan", "--max-drop", 100], "below 100 points"),
        (["--plan", "--max-class-drop", 100], "below 100 points"),
        (["{pi}", "--reference", "{pi}", "--max-drop", 100], "below 100 points"),
        (["{pi}", "--reference", "{pi}", "--confidence", 99.99999999], "1e-5 or above"),
        (["--plan", "--confidence", 99.999, "--looks", 10], "--confidence 99.99 or less"),
        (["--plan", "--report", "a.md"], "--report is for"),
        (["--plan", "{pi}"], "BUNDLE is for"),
        (["--plan", "--max-ece-rise", 2], "--max-ece-rise is for"),
        (["{pi}", "--save-baseline", "b.json", "--report", "a.md"], "--report is for"),
        (["{pi}", "--save-baseline", "b.json", "--max-drop", 1], "--max-drop is for"),
        (["{pi}", "--reference", "{pi}", "--true-drop", 1], "--true-drop is for --plan"),
        (["{pi}", "--reference", "{pi}", "--calib-table", "{pi}"], "is for --explain"),
        (["{pi}", "{pi}", "--max-drop", 1], "--max-drop is for"),
        (["{pi}", "{pi}", "--confidence", 90], "--confidence is for"),
        (["{pi}", "--explain", "--reference", "{pi}", "--time", 3], "--time is for"),
        (["{pi}", "--explain", "--reference", "{pi}", "--workers", 2], "--workers is for"),
        (["{pi}", "--baseline", "{json}", "--save-baseline", "{json}"], "name another"),
        (["{pi}", "--baseline", "{json}", "--report", "{json}"], "name another"),
        (["{pi}", "--reference", "{pi}", "--report", "a.json", "--report", "./a.json"], "another"),
        (["{pi}", "--save-baseline", "{pi}"], "name another"),
        (["{pi}", "--reference", "{json}", "--resume", "{json}"], "name another"),
    ],
)
def test_usage(
    edgecls: Command, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[object], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.json").write_text("{}")
    paths: dict[object, Path] = {"{pi}": recorded / "pi.logits", "{json}": tmp_path / "kept.json"}
    before = (recorded / "pi.logits").read_bytes()
    done = edgecls("drift", *(paths.get(argument, argument) for argument in arguments))

    assert done.code == 2, done.err
    assert said in " ".join(done.err.split())
    assert (recorded / "pi.logits").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_what_the_file_says_for_other_modes_is_no_error(
    edgecls: Command, recorded: Path, tmp_path: Path
) -> None:
    (tmp_path / "edgecls.toml").write_text(
        f'[drift]\nreference = "{recorded}/pi.logits"\nmax-drop = 2\ntime = 3\ntrue-drop = 0.5\n'
    )
    common = ["drift", "-c", tmp_path / "edgecls.toml", recorded / "pi.logits"]
    done = edgecls(*common, recorded / "pi.logits", "--json")

    assert done.code == 0, done.err
    assert json.loads(done.out)["pairs"][0]["agreed"] == 330
