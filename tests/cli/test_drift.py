"""``edgecls drift`` with every kind of reference, its outcomes and its plan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..conftest import Command, Digits


def test_a_small_set_is_undecided_and_says_how_many_images_would_do(
    edgecls: Command, digits: Digits
) -> None:
    done = edgecls("drift", digits.bundle("raspberry-pi"), "--reference", digits.bundle("jetson"),
                   "--data", digits.judged, "--images", 100)  # fmt: skip

    assert done.code == 5, done.err
    assert "undecided (confidence 95 %)" in done.out
    assert "299 images would decide it (199 more)" in done.out


def test_recorded_logits_stand_in_for_a_bundle(
    edgecls: Command, digits: Digits, recorded: Path
) -> None:
    live = edgecls("drift", digits.bundle("raspberry-pi"), "--reference", digits.bundle("jetson"),
                   "--data", recorded / "data", "--json")  # fmt: skip
    sent = edgecls("drift", recorded / "pi.logits", "--reference", digits.bundle("jetson"),
                   "--data", recorded / "data", "--json")  # fmt: skip
    first, second = json.loads(live.out), json.loads(sent.out)

    assert live.code == sent.code == 0, sent.err
    assert first["metrics"] == second["metrics"], "to the last bit"
    assert second["backends"]["candidate"] == "litert (recorded)"


def test_two_recordings_need_no_images(edgecls: Command, recorded: Path) -> None:
    done = edgecls("drift", recorded / "pi.logits", "--reference", recorded / "pi.logits")

    assert done.code == 0, done.err
    assert "330 images, agreement 100.00 %" in done.out
    assert "N_name" in done.err, "the recorded names have the class folders"


def test_an_image_that_was_not_recorded_is_no_clean_pass(
    edgecls: Command, digits: Digits, recorded: Path
) -> None:
    done = edgecls("drift", recorded / "pi.logits", "--reference", digits.bundle("jetson"),
                   "--data", digits.judged)  # fmt: skip

    assert done.code == 4, done.err
    assert "not in" in done.out


def test_a_damaged_recording_is_refused(edgecls: Command, recorded: Path, tmp_path: Path) -> None:
    data = (recorded / "pi.logits").read_bytes()
    (tmp_path / "cut.logits").write_bytes(data[: len(data) // 2])
    done = edgecls("drift", tmp_path / "cut.logits", "--reference", recorded / "pi.logits")

    assert done.code == 4
    assert "cut.logits" in done.err


def test_a_baseline_takes_the_old_bundles_place(
    edgecls: Command, digits: Digits, recorded: Path, tmp_path: Path
) -> None:
    file = tmp_path / "baseline.json"
    saved = edgecls("drift", digits.bundle("raspberry-pi"), "--data", recorded / "data",
                    "--save-baseline", file)  # fmt: skip
    done = edgecls("drift", digits.bundle("desktop-gpu"), "--allow-fallback", "--baseline", file,
                   "--data", recorded / "data", "--max-ece-rise", 5, "--json")  # fmt: skip
    direct = edgecls("drift", digits.bundle("desktop-gpu"), "--allow-fallback", "--reference",
                     digits.bundle("raspberry-pi"), "--data", recorded / "data",
                     "--max-ece-rise", 5, "--json")  # fmt: skip
    first, second = json.loads(done.out), json.loads(direct.out)

    assert saved.code == 0, saved.err
    assert "330 answers of raspberry-pi" in saved.out
    assert str(tmp_path) not in file.read_text()
    assert done.code == direct.code == 0, done.err
    assert first["verdict"] == second["verdict"]
    assert first["metrics"]["graded"] == second["metrics"]["graded"]
    assert first["metrics"]["differences"] is None


def test_a_baseline_of_other_images_is_refused(
    edgecls: Command, digits: Digits, recorded: Path, tmp_path: Path
) -> None:
    file, data = tmp_path / "baseline.json", tmp_path / "data"
    shutil.copytree(recorded / "data", data)
    edgecls("drift", recorded / "pi.logits", "--data", data, "--save-baseline", file)
    first, second = sorted(data.rglob("*.png"))[:2]
    shutil.copy(first, second)
    done = edgecls("drift", recorded / "pi.logits", "--data", data, "--baseline", file)
    second.unlink()
    fewer = edgecls("drift", recorded / "pi.logits", "--data", data, "--baseline", file)

    assert (done.code, fewer.code) == (4, 4)
    assert "is another file" in done.err
    assert "0 images are new and 1 are missing" in fewer.err


def test_every_pair_of_devices(edgecls: Command, digits: Digits, recorded: Path) -> None:
    arguments = ["drift", recorded / "pi.logits", digits.bundle("jetson"),
                 digits.bundle("raspberry-pi"), "--allow-fallback", "--data",
                 recorded / "data"]  # fmt: skip
    shown, done = edgecls(*arguments), edgecls(*arguments, "--json")
    found = json.loads(done.out)

    assert shown.code == done.code == 0, done.err
    assert "same top-1 answer on 330 images" in shown.out
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [(0, 1), (0, 2), (1, 2)]
    assert found["pairs"][1]["agreed"] == 330
    assert found["pairs"][1]["lower"] == pytest.approx(98.85, abs=0.01)


def test_a_run_goes_on_from_its_file_and_from_no_others(
    edgecls: Command, recorded: Path, tmp_path: Path
) -> None:
    command = ["drift", recorded / "pi.logits", "--reference", recorded / "pi.logits", "--json",
               "--resume", tmp_path / "progress"]  # fmt: skip
    first, second = edgecls(*command), edgecls(*command)
    fewer, laxer = edgecls(*command, "--images", 100), edgecls(*command, "--max-drop", 2)

    assert first.code == second.code == 0, first.err
    assert second.out == first.out
    assert "11 of 11 parts are done already" in second.err
    assert fewer.code == laxer.code == 4
    assert "since it was begun there changed the data and the ground truth;" in fewer.err
    assert "there changed the options;" in laxer.err


def test_plan(edgecls: Command) -> None:
    shown = edgecls("drift", "--plan", "--max-drop", 1)
    done = edgecls("drift", "--plan", "--max-drop", 0.5, "--true-drop", 0.25, "--json")
    row = json.loads(done.out)["checks"][0]

    assert shown.code == done.code == 0
    assert "probability 80 %" in shown.out
    assert (row["measure"], row["limit"]) == ("top1_drop", 0.5)
    assert row["images"] == pytest.approx(15_300, rel=0.03)


def test_budgets_from_the_file(edgecls: Command, recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "edgecls.toml").write_text(
        f'[drift]\nbundle = "{recorded}/pi.logits"\nreference = "{recorded}/pi.logits"\n'
        "max-drop = 2\nmax-top5-drop = 3\nmax-class-drop = 15\nmin-agreement = 97\n"
        "max-ece-rise = 4.5\nconfidence = 90\nlooks = 2\n"
    )
    done = edgecls("drift", "-c", tmp_path / "edgecls.toml", "--json")
    verdict = json.loads(done.out)["verdict"]

    assert done.code in {0, 5}, done.err
    assert {check["measure"]: check["limit"] for check in verdict["checks"]} == {
        "top1_drop": 2, "top5_drop": 3, "class_drop": 15, "ece_rise": 4.5, "agreement": 97,
    }  # fmt: skip
    assert (verdict["confidence"], verdict["looks"]) == (90, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "give what is to be judged"),
        (["{pi}"], 2, "--reference, --baseline or --save-baseline"),
        (["{pi}", "--reference", "{pi}", "--max-drop", 0], 2, "above 0"),
        (["{pi}", "--reference", "{pi}", "--confidence", 40], 2, "between 50 and 100"),
        (["{pi}", "--reference", "{jetson}"], 2, "--data DIR"),
        (["{pi}", "{pi}", "--reference", "{pi}"], 2, "one BUNDLE"),
        (["{pi}", "--reference", "{pi}", "--weights", "{pi}"], 2, "bring their own weights"),
        (["{pi}", "--reference", "{pi}", "--baseline", "{pi}"], 2, "one of them"),
        (["{pi}", "--baseline", "{pi}"], 4, "not a baseline"),
        (["--plan", "--true-drop", 3], 2, "--discordance 3 or more"),
    ],
)
def test_refused(
    edgecls: Command, digits: Digits, recorded: Path, arguments: list[str], code: int, said: str
) -> None:
    paths = {"{pi}": recorded / "pi.logits", "{jetson}": digits.bundle("jetson")}
    done = edgecls("drift", *(paths.get(str(argument), argument) for argument in arguments))

    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err


def test_predict_takes_images_or_a_folder(edgecls: Command, digits: Digits) -> None:
    bundle = digits.bundle("raspberry-pi")

    assert edgecls("predict", bundle).code == 2
    assert edgecls("predict", bundle, "a.png", "--data", digits.judged).code == 2
