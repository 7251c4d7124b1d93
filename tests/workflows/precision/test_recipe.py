"""The recipe on a net with a planted fault, as a command, up to what ships."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from edgecls.bundle import Bundle
from edgecls.core.progress import Quiet
from edgecls.data.images import list_images
from edgecls.targets import TARGETS
from edgecls.workflows.calibrate import calibrate
from edgecls.workflows.precision.judging import Judging
from edgecls.workflows.precision.recipe import Recipe, State
from edgecls.workflows.precision.resume import Results, identity
from edgecls.workflows.precision.source import Source

from .nets import chain, judging_of, pixels, table_of

if TYPE_CHECKING:
    from ...conftest import Command

SPREAD = 4.0 ** np.arange(-3, 3)


def spread() -> onnx.ModelProto:
    """The chain without its fault, its first channels scaled apart: it computes the same."""
    model = chain(planted=False)
    for item in model.graph.initializer:
        array = numpy_helper.to_array(item).copy()
        if item.name not in {"w1", "b1", "w2"}:
            continue
        if item.name == "w1":
            array *= SPREAD.reshape(-1, 1, 1, 1)
        if item.name == "b1":
            array *= SPREAD
        if item.name == "w2":
            array /= SPREAD.reshape(1, -1, 1, 1)
        item.CopyFrom(numpy_helper.from_array(array, item.name))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("spread")
    onnx.save(spread(), out / "net.onnx")
    for name, count, seed in (("calib", 20, 1), ("tune", 100, 2), ("judged", 100, 5)):
        (out / name).mkdir()
        for place, image in enumerate(pixels(count, seed)):
            Image.fromarray(image).save(out / name / f"{place}.png")
    return out


@pytest.mark.slow
def test_what_pays_is_kept_and_ships(folder: Path, tmp_path: Path, edgecls: Command) -> None:
    common = [
        "export", folder / "net.onnx", "--preprocess", "cifar10", "--calib", folder / "calib",
        "--target", "raspberry-pi", "--target", "jetson", "--json",
    ]  # fmt: skip
    plain = edgecls(*common, "-o", tmp_path / "plain")
    assert plain.code == 0, plain.err
    best = edgecls(*common, "-o", tmp_path / "best", "--recipe", "best", "--tune", folder / "tune")
    assert best.code == 0, best.err
    tuning = json.loads(best.out)["tuning"]

    tried = {one["repair"]: one for one in tuning["tried"]}
    assert list(tried) == ["equalization", "range methods", "rounding", "bias correction"]
    assert "equalization" in tuning["repairs"]
    assert tuning["repairs"] == [name for name, one in tried.items() if one["kept"]]
    for gain in tried["equalization"]["gains"]:
        assert gain["verdict"] == "better"
        assert gain["after"] == gain["alone"] > gain["before"] + 6
        assert gain["before"] == gain["plain"]
    # What is kept is never worse than what was before it.
    for one in tried.values():
        if one["kept"]:
            assert {gain["verdict"] for gain in one["gains"]} <= {"better", "level"}
    for target in ("raspberry-pi", "jetson"):
        manifest = Bundle(tmp_path / "best" / target).manifest
        assert manifest.tuning is not None
        assert list(manifest.tuning.repairs) == tuning["repairs"]
        assert manifest.tuning.max_drop is None
        agreement = {}
        for kind in ("plain", "best"):
            done = edgecls(
                "drift", tmp_path / kind / target, "--allow-fallback", "--reference",
                folder / "net.onnx", "--data", folder / "judged", "--min-agreement", 90, "--json",
            )  # fmt: skip
            agreement[kind] = json.loads(done.out)["metrics"]["agreed"]
        assert agreement["best"] > agreement["plain"]
        verified = edgecls("verify", tmp_path / "best" / target, "--allow-fallback")
        assert verified.code == 0, verified.err


def test_some_of_the_images_are_of_all_classes() -> None:
    """They are sorted by class: the first of them would be one class's."""
    whole = judging_of(spread(), 100)
    names = tuple(f"class{place // 10}/{place % 10}.png" for place in range(100))
    few = replace(whole, names=names).some(20)

    assert {name.split("/")[0] for name in few.names} == {f"class{c}" for c in range(10)}
    assert np.array_equal(few.pixels, whole.pixels[::5])
    assert np.array_equal(few.expected, whole.expected[::5])
    assert len(whole.some(1000).names) == 100


def test_an_interrupted_recipe_goes_on_and_ends_alike(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after each of its answers in turn, it comes to the uninterrupted plan."""
    model = spread()
    judging, images = judging_of(model, 30), list_images(folder / "calib")
    scheme = TARGETS["jetson"].scheme
    calibration = calibrate(model, images, preprocess=judging.preprocess, size=(8, 8),
                            method="minmax", seed=0, progress=Quiet())  # fmt: skip
    first = State(source=Source(model=model, table=calibration.ranges(8)), calibration=calibration)
    file = tmp_path / "results.json"

    def recipe(path: Path | None) -> Recipe:
        return Recipe(
            images=images, size=(8, 8), precision="int8", schemes={scheme: ("jetson",)},
            judging=judging, seed=0, results=Results(path, identity(first.source, judging)),
            progress=Quiet(),
        )  # fmt: skip

    whole, tried = recipe(None)(first)
    assert [one.kept for one in tried].count(True) >= 1
    answered = 0
    answer = Judging.answer

    def interrupted(self: Judging, graph: onnx.ModelProto) -> NDArray[np.float32]:
        nonlocal answered
        if answered == 8:  # one layer asks for four: a range method each
            raise KeyboardInterrupt
        answered += 1
        return answer(self, graph)

    monkeypatch.setattr(Judging, "answer", interrupted)
    for _ in range(100):
        answered = 0
        try:
            again, tried_again = recipe(file)(first)
        except KeyboardInterrupt:
            continue
        break
    else:
        pytest.fail("it begins again each time")
    assert tried_again == tried
    assert again.sha256() == whole.sha256() != first.source.sha256()


def test_layers_left_float_keep_the_models_own_weights() -> None:
    """What a repair chose for codes is no good in float: all left float is the float graph."""
    model = chain(planted=False)
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    mended = {"c1": {"w1": arrays["w1"] + 1}, "c3": {"b3": arrays["b3"] - 1}}
    source = Source(model=model, table=table_of(model), mended=mended)
    scheme = TARGETS["jetson"].scheme
    judging = judging_of(model)
    names = [layer.name for layer in source.layers()]
    assert judging.noise(judging.answer(source.quantize(scheme, names).model)) == 0.0
    first = {item.name: numpy_helper.to_array(item)
             for item in source.quantize(scheme, ["c1"]).model.graph.initializer}  # fmt: skip
    assert np.array_equal(first["w1"], arrays["w1"])
    assert np.array_equal(first["b3"], arrays["b3"] - 1)
