"""Explaining by answers that were kept: a device's logits, a baseline, another bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgecls.core.errors import DataError
from edgecls.drift.explanation import Explanation
from edgecls.workflows.sources import ModelOptions

from .conftest import drawing

if TYPE_CHECKING:
    from ...conftest import Command
    from .conftest import Signs

_NO_MODEL = ModelOptions()


@pytest.fixture(scope="module")
def lossy(signs: Signs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = drawing.reencode(signs.judged, tmp_path_factory.mktemp("lossy") / "data", 5)
    return folder


@pytest.fixture(scope="module")
def kept(signs: Signs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bundle answered to the originals: a file of logits, and a baseline."""
    from edgecls.cli.main import main

    folder = tmp_path_factory.mktemp("kept")
    for arguments in (
        ["predict", signs.bundle(), "--data", signs.judged, "--save-logits", folder / "pi.logits"],
        ["drift", signs.bundle(), "--data", signs.judged, "--save-baseline", folder / "pi.json"],
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        assert stop.value.code == 0
    return folder


def by_stage(found: Explanation) -> dict[str, tuple[str, str, float]]:
    return {stage.stage: (stage.expected, stage.found, stage.cost.points) for stage in found.stages}


def test_lossy_data_by_a_recording_of_the_same_bundle(
    signs: Signs, kept: Path, lossy: Path
) -> None:
    found = signs.explained(
        signs.bundle(), reference=str(kept / "pi.logits"), model=_NO_MODEL, data=lossy
    )
    expected, said, points = by_stage(found)["data"]

    assert [stage.stage for stage in found.blamed] == ["data"]
    assert expected == "the .png files that raspberry-pi int8 on litert saw"
    assert said == "JPEG, quality about 5; 160 of 160 files differ"
    assert points >= 20
    assert "channel order" in found.same
    assert not [note for note in found.notes if "told apart" in note]


def test_lossy_data_by_a_baseline(signs: Signs, kept: Path, lossy: Path) -> None:
    found = signs.explained(
        signs.bundle(), reference=None, baseline=kept / "pi.json", model=_NO_MODEL, data=lossy
    )

    assert [stage.stage for stage in found.blamed] == ["data"]
    assert "and cannot be told apart" in " ".join(found.notes), "a baseline names no bundle"


@pytest.mark.slow
def test_data_and_preprocessing_by_a_recording(
    signs: Signs, kept: Path, lossy: Path, tmp_path: Path
) -> None:
    """With the originals at hand, the model, the data and the preprocessing are told apart."""
    wrong = msgspec.structs.replace(drawing.PREPROCESS, antialias=False)
    found = signs.explained(
        signs.faulty(tmp_path / "b", preprocess=wrong), reference=str(kept / "pi.logits"),
        model=_NO_MODEL, data=lossy, originals=signs.judged,
    )  # fmt: skip
    stages = by_stage(found)

    assert list(stages) == ["model", "data", "interpolation"]
    assert stages["model"][2] == 0
    assert {stage.stage for stage in found.blamed} == {"data", "interpolation"}
    assert sum(points for _, _, points in stages.values()) == pytest.approx(found.total.points)


@pytest.mark.slow
def test_a_recorded_candidate(signs: Signs, kept: Path, edgecls: Command) -> None:
    """What a device answered, against the model, on a machine without the device."""
    done = edgecls("drift", kept / "pi.logits", *signs.arguments(), "--explain", "--json",
                   "--images", 80)  # fmt: skip
    found = msgspec.json.decode(done.out, type=Explanation)

    assert done.code == 0, done.err
    assert [stage.stage for stage in found.stages] == [
        "torch to ONNX", "simplification", "quantization", "lowering", "backend",
    ]  # fmt: skip
    assert found.stages[-1].found == "what litert (recorded) answered"
    assert found.blamed == ()


@pytest.mark.slow
def test_one_bundle_by_another(signs: Signs, tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(drawing.PREPROCESS, color="bgr")
    found = signs.explained(
        signs.faulty(tmp_path / "b", preprocess=wrong), reference=str(signs.bundle("jetson")),
        model=_NO_MODEL, labels=None,
    )  # fmt: skip

    assert list(by_stage(found)) == ["channel order", "model"]
    assert [stage.stage for stage in found.blamed] == ["channel order"]
    assert "label map" in found.same, "bundles have class names"


def test_images_that_nobody_saw(signs: Signs, kept: Path, tmp_path: Path) -> None:
    drawing.write(*drawing.draw(16, 9), tmp_path)
    for path in list(tmp_path.rglob("*.png")):
        path.rename(path.with_stem(f"new{path.stem}"))

    with pytest.raises(DataError, match="neither by content nor by name"):
        signs.explained(
            signs.bundle(), reference=str(kept / "pi.logits"), model=_NO_MODEL, data=tmp_path
        )


@pytest.mark.slow
def test_without_ground_truth_the_agreement_is_explained(
    signs: Signs, edgecls: Command, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted(signs.judged.rglob("*.png"))[::2]:
        shutil.copy(path, flat)
    (flat / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    wrong = msgspec.structs.replace(drawing.PREPROCESS, color="bgr")
    arguments = signs.arguments()
    arguments[arguments.index("--data") + 1] = flat
    done = edgecls("drift", signs.faulty(tmp_path / "b", preprocess=wrong), *arguments,
                   "--explain")  # fmt: skip

    assert done.code == 4, "an image was left out"
    assert "agreement with the reference on 80 images: reference 100.00 %" in done.out
    assert "channel order: expected RGB, found BGR: costs 100.0 points" in done.out
    assert "1 images were left out, e.g. broken.png" in done.out


@pytest.mark.slow
def test_printed(signs: Signs, edgecls: Command, tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(drawing.PREPROCESS, color="bgr")
    arguments = [signs.faulty(tmp_path / "b", preprocess=wrong), *signs.arguments(), "--explain"]
    shown, as_json = edgecls("drift", *arguments), edgecls("drift", *arguments, "--json")
    found = json.loads(as_json.out)

    assert shown.code == as_json.code == 0, shown.err
    assert "no difference in: data, orientation, resize and crop" in shown.out
    assert "no layer departs from its plan" in shown.out
    assert [stage["stage"] for stage in found["stages"]] == [
        "channel order", "torch to ONNX", "simplification", "quantization", "lowering", "file",
    ]  # fmt: skip


def test_refused(signs: Signs, edgecls: Command) -> None:
    bundle = signs.bundle()
    for arguments, said in (
        ([bundle, "--explain", "--reference", bundle], "--data DIR"),
        ([bundle, "--explain", "--data", signs.judged], "--reference or --baseline"),
        ([bundle, bundle, "--explain", "--data", signs.judged], "one BUNDLE"),
        ([bundle, "--reference", bundle, "--labels", signs.labels], "--labels is for --explain"),
        ([signs.graph, "--reference", bundle, "--explain", "--data", signs.judged,
          "--preprocess", signs.preprocess], "is a model"),
    ):  # fmt: skip
        done = edgecls("drift", *arguments)

        assert done.code == 2, done.err
        assert said in done.err
