"""Sensitivity, against a net whose bad layer is known and against graphs made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgecls.calibration.placement import place_qdq
from edgecls.core.errors import DataError
from edgecls.core.progress import Quiet
from edgecls.core.values import QuantScheme
from edgecls.targets import TARGETS
from edgecls.workflows.graph import run_onnx
from edgecls.workflows.precision.resume import Results, identity
from edgecls.workflows.precision.sensitivity import Cost, measure_scheme
from edgecls.workflows.precision.source import Source

from .nets import LAYERS, PLANTED, chain, judging_of, table_of

if TYPE_CHECKING:
    from ...conftest import Command, Digits


def source(model: onnx.ModelProto) -> Source:
    return Source(model=model, table=table_of(model))


FULL = TARGETS["raspberry-pi"].scheme
FUSED = TARGETS["jetson"].scheme


@pytest.mark.parametrize(
    ("scheme", "blamed"),
    # Where every value is quantized, the fault is in what c2 makes and in what c3 reads; TensorRT
    # quantizes it only where c3 reads it.
    [(FULL, {PLANTED, "c3"}), (FUSED, {"c3"})],
    ids=["full", "fused"],
)
def test_a_planted_bad_layer_comes_first(scheme: QuantScheme, blamed: set[str]) -> None:
    model = chain(planted=True)
    found = measure_scheme(
        source(model),
        scheme,
        judging_of(model),
        Results(None, {}),
        Quiet(),
    )

    assert {layer.name for layer in found.layers[: len(blamed)]} == blamed
    noise = [layer.cost.sqnr_db or 0.0 for layer in found.layers]
    assert noise[len(blamed) - 1] < noise[len(blamed)] - 15
    assert sorted(layer.name for layer in found.layers) == sorted(LAYERS)


def test_without_a_fault_it_does_not() -> None:
    model = chain(planted=False)
    found = measure_scheme(
        source(model),
        FULL,
        judging_of(model),
        Results(None, {}),
        Quiet(),
    )

    noise = [layer.cost.sqnr_db or 0.0 for layer in found.layers]
    assert noise[-1] - noise[0] < 20
    assert found.all.sqnr_db is not None
    assert found.all.sqnr_db < noise[0] + 3


def test_the_numbers_are_those_of_the_graph_run_by_hand() -> None:
    model = chain(planted=True)
    judging, table = judging_of(model), table_of(model)
    found = measure_scheme(source(model), FUSED, judging, Results(None, {}), Quiet())

    row = next(layer for layer in found.layers if layer.name == "c3")
    graph = place_qdq(model, table, FUSED, ["c1", "c2", "logits"]).model
    tensors = judging.preprocess.normalize(judging.pixels)
    answers = run_onnx(graph, tensors).astype(np.float64)
    expected = judging.expected.astype(np.float64)
    noise = ((answers - expected) ** 2).sum() / (expected**2).sum()
    assert row.cost.sqnr_db == pytest.approx(-10 * np.log10(noise), abs=1e-6)
    assert row.cost.top1 == 100 * (answers.argmax(1) == judging.truth).mean()
    assert judging.drop(answers.astype(np.float32)) == pytest.approx(100 - row.cost.agreement)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """What is kept is taken, not measured again: a row that was changed in the file stays so."""
    model = chain(planted=True)
    judging = judging_of(model)
    file, key = tmp_path / "results.json", identity(source(model), judging)

    class Stop(Quiet):
        def track(self, items, description, total=None):  # type: ignore[no-untyped-def]
            yield from list(items)[:2]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_scheme(source(model), FULL, judging, Results(file, key), Stop())
    kept = json.loads(file.read_text())["results"]
    assert [name.rpartition("/")[2] for name in kept] == ["c1", "c2"]
    first = next(iter(kept))
    again = Results(file, key)
    again.put(first, Cost(sqnr_db=-7.0, kl=1.0, agreement=2.0, top1=3.0))
    found = measure_scheme(source(model), FULL, judging, Results(file, key), Quiet())

    assert found.layers[0].cost == Cost(sqnr_db=-7.0, kl=1.0, agreement=2.0, top1=3.0)
    fresh = measure_scheme(source(model), FULL, judging, Results(None, {}), Quiet())
    assert {row.name: row for row in found.layers if row.name != "c1"} == {
        row.name: row for row in fresh.layers if row.name != "c1"
    }


def test_results_of_another_run_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    Results(file, {"the model": "a", "the images": "b"}).put("x", 1)

    with pytest.raises(DataError, match="there changed the images; remove the file"):
        Results(file, {"the model": "a", "the images": "c"})
    file.write_text("{}")
    with pytest.raises(DataError, match="not a file of results"):
        Results(file, {})


@pytest.mark.slow
def test_the_command(digits: Digits, tmp_path: Path, edgecls: Command) -> None:
    arguments = [
        "sensitivity", "lenet5", "--weights", digits.weights, "--calib", digits.train,
        "--calib-images", 40, "--data", digits.judged, "--images", 100,
        "--target", "raspberry-pi", "--resume", tmp_path / "r.json",
    ]  # fmt: skip
    done = edgecls(*arguments, "--json", "--plot", tmp_path / "p.png")
    assert done.code == 0, done.err
    found = json.loads(done.out)

    (scheme,) = found["schemes"]
    assert (found["judged_on"], scheme["targets"]) == (100, ["raspberry-pi"])
    noise = [layer["cost"]["sqnr_db"] for layer in scheme["layers"]]
    assert noise == sorted(noise)
    assert len(noise) == 5
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    text = edgecls(*arguments)
    assert "all layers" in text.out
    refused = edgecls(*arguments, "--seed", 3)
    assert refused.code == 4
    assert "there changed the calibration" in refused.err
