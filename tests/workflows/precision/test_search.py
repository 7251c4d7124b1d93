"""The search, against every set of layers there is; and as a command, up to the bundle."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from PIL import Image

from edgecls.bundle import Bundle
from edgecls.core.progress import Quiet
from edgecls.targets import TARGETS
from edgecls.workflows.precision.resume import Results
from edgecls.workflows.precision.search import Candidate, Found, search
from edgecls.workflows.precision.source import Source

from .nets import LAYERS, chain, judging_of, pixels, table_of

if TYPE_CHECKING:
    from ...conftest import Command

FULL = TARGETS["raspberry-pi"].scheme
MACS = {"c1": 64 * 6 * 27, "c2": 64 * 6 * 6, "c3": 64 * 8 * 54, "logits": 5 * 8}


@pytest.fixture(scope="module")
def source() -> Source:
    model = chain(planted=True)
    return Source(model=model, table=table_of(model))


def found_by(source: Source, max_drop: float, max_float: float = 100.0) -> Found:
    return search(
        source, FULL, judging_of(source.model, 200), Results(None, {}), max_drop=max_drop,
        max_float=max_float, progress=Quiet(),
    )  # fmt: skip


def every_set(source: Source) -> dict[tuple[str, ...], float]:
    """Return the drop of every set of layers left float but the whole network."""
    judging = judging_of(source.model, 200)
    return {
        left: judging.drop(judging.answer(source.quantize(FULL, left).model))
        for count in range(len(LAYERS))
        for left in itertools.combinations(LAYERS, count)
    }


def test_what_is_found_is_the_least_of_all_sets(source: Source) -> None:
    drops = every_set(source)
    plain = drops[()]
    assert plain > 10

    for budget in (plain / 2, 3.0, 1.0):
        within = [left for left, drop in drops.items() if drop <= budget]
        least = min(sum(MACS[name] for name in left) for left in within)
        found = found_by(source, budget)
        assert found.best.drop == drops[found.best.left] <= budget
        assert sum(MACS[name] for name in found.best.left) == least
        assert found.best.float_macs == pytest.approx(100 * least / sum(MACS.values()))
        assert found.plain == Candidate(left=(), drop=plain, float_macs=0.0)


def test_within_the_budget_at_once_nothing_is_left(source: Source) -> None:
    found = found_by(source, 99.0)

    assert (found.best.left, found.tried, found.costs) == ((), 1, ())


def test_a_budget_that_cannot_be_kept(source: Source) -> None:
    """The planted layer's neighbour has most of the work: 10 % of it do not help."""
    found = found_by(source, 1.0, max_float=10.0)

    assert found.candidates == ()
    assert found.best.float_macs <= 10.0
    assert found.best.drop > 1.0
    assert set(found.best.left) < set(LAYERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted net as a file, and images of noise."""
    out = tmp_path_factory.mktemp("planted")
    onnx.save(chain(planted=True), out / "net.onnx")
    for name, count, seed in (("calib", 20, 1), ("tune", 100, 2)):
        (out / name).mkdir()
        for place, image in enumerate(pixels(count, seed)):
            Image.fromarray(image).save(out / name / f"{place}.png")
    return out


def arguments(folder: Path, out: Path, *more: object) -> list[object]:
    return [
        "export", folder / "net.onnx", "--preprocess", "cifar10", "--calib", folder / "calib",
        "--tune", folder / "tune", "--target", "raspberry-pi", "--target", "jetson",
        "-o", out, *more,
    ]  # fmt: skip


def test_a_budget_that_is_kept_ships(folder: Path, tmp_path: Path, edgecls: Command) -> None:
    done = edgecls(*arguments(folder, tmp_path, "--max-drop", 3, "--json"))
    assert done.code == 0, done.err
    tuning = json.loads(done.out)["tuning"]

    assert tuning["truth"] is None
    assert "counts as lost" not in done.out
    for scheme in tuning["schemes"]:
        assert scheme["reached"]
        assert scheme["plain"]["drop"] > 3 >= scheme["chosen"]["drop"]
        for name in scheme["targets"]:
            manifest = Bundle(tmp_path / name).manifest
            assert manifest.tuning is not None
            left = scheme["chosen"]["left"]
            assert list(manifest.tuning.left_float) == left
            assert (manifest.tuning.drop, manifest.tuning.images) == (scheme["chosen"]["drop"], 100)
            # TFLite's operators have the names of what they make.
            assert len(manifest.artefacts[0].left_float) >= len(left) > 0
    assert tuning["schemes"][0]["latency"]["backend"] == "litert"
    assert tuning["schemes"][1]["latency"] is None
    assert "layers left float" in edgecls("inspect", tmp_path / "jetson").out
    drift = edgecls(
        "drift", tmp_path / "raspberry-pi", "--reference", folder / "net.onnx", "--data",
        folder / "tune", "--min-agreement", 80, "--json",
    )  # fmt: skip
    assert drift.code == 0, drift.err
    assert "was tuned on these images: they flatter it" in drift.err
    explained = edgecls(
        "drift", tmp_path / "jetson", "--allow-fallback", "--reference", folder / "net.onnx",
        "--data", folder / "calib", "--explain", "--json",
    )  # fmt: skip
    assert explained.code == 0, explained.err
    other = edgecls(
        "drift", tmp_path / "raspberry-pi", "--reference", folder / "net.onnx", "--data",
        folder / "calib", "--min-agreement", 80,
    )  # fmt: skip
    assert "was calibrated on these images" in other.err
    other = edgecls(
        "drift", tmp_path / "raspberry-pi", "--reference", folder / "net.onnx", "--data",
        folder / "tune", "--images", 99, "--min-agreement", 80,
    )  # fmt: skip
    assert "these images" not in other.err
    # Converted anew on the same images, with the same layers left float, it is the same file.
    stages = {stage["stage"]: stage for stage in json.loads(explained.out)["stages"]}
    assert "quantization" in stages
    assert "file" not in stages


def test_a_budget_for_16x8_is_kept(folder: Path, tmp_path: Path, edgecls: Command) -> None:
    """Channels 300,000 times the others' are too wide for 16 bits, too."""
    model = chain(planted=True)
    for item in model.graph.initializer:
        if item.name == "w2":
            array = onnx.numpy_helper.to_array(item).copy()
            array[0] *= 300
            item.CopyFrom(onnx.numpy_helper.from_array(array, item.name))
    onnx.save(model, tmp_path / "wide.onnx")
    done = edgecls(
        "export", tmp_path / "wide.onnx", "--preprocess", "cifar10", "--calib", folder / "calib",
        "--tune", folder / "tune", "--target", "raspberry-pi", "--precision", "int16x8",
        "--max-drop", 1, "-o", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "; all in 16x8" in done.out
    bundle = Bundle(tmp_path / "raspberry-pi")

    assert bundle.manifest.precision == "int16x8"
    assert bundle.manifest.tuning is not None
    assert bundle.manifest.tuning.left_float == ("Conv_2", "Conv_4")
    assert bundle.manifest.tuning.drop <= 1
    assert bundle.manifest.artefacts[0].quantized == 2
    drift = edgecls(
        "drift", bundle.path, "--reference", tmp_path / "wide.onnx", "--data", folder / "tune",
        "--min-agreement", 90, "--json",
    )  # fmt: skip
    assert drift.code == 0, drift.err
    assert edgecls("verify", bundle.path).code == 0


def test_a_budget_that_is_missed_ends_with_1_and_keeps_the_best(
    folder: Path, tmp_path: Path, edgecls: Command
) -> None:
    limits = ("--max-drop", 1, "--max-float", 10, "--tune-resume", tmp_path / "r.json")
    done = edgecls(*arguments(folder, tmp_path / "out", *limits))

    assert done.code == 1
    assert "--max-drop 1 cannot be kept. raspberry-pi: " in done.err
    assert "% of the answers changed on the tuning images" in done.err  # there is no truth
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "jetson.failing", "raspberry-pi.failing",
    ]  # fmt: skip
    assert Bundle(tmp_path / "out" / "jetson.failing").manifest.target == "jetson"
    assert json.loads((tmp_path / "r.json").read_text())["results"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--max-drop", 1, "--strict-int8"], "--max-drop leaves layers float"),
        (["--max-drop", 1, "--precision", "fp32"], "--max-drop is for int16x8 and int8"),
        (["--max-drop", -1], "--max-drop must be 0 or more"),
        ([], "--tune is for --max-drop POINTS or --recipe best"),
        (["--recipe", "best", "--implicit-int8"], "give one of them"),
        (["--recipe", "best", "--max-float", 10], "--max-float bounds what --max-drop POINTS"),
    ],
)
def test_what_does_not_go_together_is_refused(
    folder: Path, tmp_path: Path, edgecls: Command, more: list[object], text: str
) -> None:
    targets = [] if "fp32" not in more else ["--target", "desktop-gpu"]
    done = edgecls(*arguments(folder, tmp_path, *more, *targets))

    assert done.code == 2
    assert text in done.err
