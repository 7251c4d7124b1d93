"""``bench`` and ``bench compare`` on a real bundle, in real processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest

from edgecls.devices.bench.result import BenchResult, read_result

from ..runtimes.conftest import (  # noqa: F401
    encoded,
    make_bundle,
    photo,
    pi_bundle,
    tflite_float,
    tflite_int8,
    weights,
)

if TYPE_CHECKING:
    from ..conftest import Command

ROOT = Path(__file__).parents[2]
QUICK = ("--processes", "1", "--runs", "3", "--warmup", "1", "--threads", "1")


def test_all_is_measured(edgecls: Command, pi_bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "a.json"
    done = edgecls("bench", pi_bundle, *QUICK, "--processes", 2, "-o", file)
    found = read_result(file)

    assert done.code == 0, done.err
    assert (found.precision, found.backend, found.threads) == ("int8", "litert", 1)
    assert (found.images, found.runs, len(found.processes)) == (2, 3, 2)
    stages = ["decode", "preprocess", "inference", "postprocess", "total"]
    assert list(found.stages) == stages
    for process in found.processes:
        assert {stage: len(runs) for stage, runs in process.runs_ms.items()} == dict.fromkeys(
            stages, 3
        )
        parts = [process.runs_ms[stage] for stage in stages[:4]]
        for total, *inner in zip(process.runs_ms["total"], *parts, strict=True):
            assert 0 < sum(inner) <= total + 0.001
        cold, memory = process.cold_start, process.memory
        assert min(cold.python, cold.imports, cold.load, cold.first) > 0
        assert 1e6 < memory.python < memory.imports <= memory.load <= memory.peak < 1e9
        assert process.stream_per_s > 0
        assert len(process.readings) >= 2
    assert {"machine", "python", "kernel"} <= {finding.name for finding in found.machine}
    schema = json.loads((ROOT / "docs" / "schemas" / "bench.schema.json").read_text())
    jsonschema.validate(json.loads(file.read_text()), schema)
    for word in ("p99", "inference", "cold start", "memory", "images/s", str(file)):
        assert word in done.out


def test_images_go_round_in_batches(
    edgecls: Command, pi_bundle: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    for index in range(3):
        (folder / f"{index}.png").write_bytes(encoded(photo(index)))
    data = ("--data", folder.parent)
    done = edgecls("bench", pi_bundle, *data, *QUICK, "--batch", 2, "--json")
    named = edgecls("bench", pi_bundle, *sorted(folder.iterdir()), *QUICK, "--json")
    one, other = (msgspec.json.decode(found.out, type=BenchResult) for found in (done, named))

    assert (one.batch, one.images) == (2, 3)
    assert one.images_sha256 == other.images_sha256
    assert len(one.processes[0].runs_ms["total"]) == 3
    assert one.per_s == pytest.approx(2e3 * 3 / sum(one.processes[0].runs_ms["total"]))


def test_here_is_a_device(edgecls: Command, pi_bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    image = tmp_path / "a.png"
    image.write_bytes(encoded(photo(5)))
    done = edgecls("bench", pi_bundle, image, *QUICK, "--on", "here", "--json",
                   "-o", tmp_path / "a.json")  # fmt: skip
    (line,) = map(json.loads, done.out.splitlines())

    assert (done.code, line["device"], line["error"]) == (0, "here", None)
    assert line["result"] == json.loads((tmp_path / "a.json").read_text())
    assert line["result"]["images"] == 1


def throttled_pi(folder: Path) -> None:
    program = folder / "vcgencmd"
    program.write_text("#!/bin/sh\necho 'throttled=0x50005'\n")
    program.chmod(0o755)


def test_a_board_that_throttles_makes_it_invalid(
    edgecls: Command, pi_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    throttled_pi(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    file = tmp_path / "a.json"
    done = edgecls("bench", pi_bundle, *QUICK, "-o", file)
    compared = edgecls("bench", "compare", file, file)

    assert done.code == 1
    assert "invalid: the board slowed down meanwhile" in done.out
    assert read_result(file).invalid == ("throttled: under-voltage", "throttled: throttled")
    assert compared.code == 4
    assert "the first is invalid: throttled: under-voltage" in compared.err


def test_an_emulated_device_gives_no_figure_of_the_board(
    edgecls: Command, pi_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    throttled_pi(tmp_path)  # of the machine that emulates: not the board's
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EDGECLS_APP", str(tmp_path))
    file = tmp_path / "a.json"
    done = edgecls("bench", pi_bundle, *QUICK, "-o", file)

    assert done.code == 0
    assert "emulated: no figure of the board" in done.out
    assert (read_result(file).emulated, read_result(file).watched) == (True, ())
    assert edgecls("bench", "compare", file, file).code == 4


def test_compare(edgecls: Command, pi_bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    """Against itself and a copy whose times are doubled: the ratio is exact."""
    file, slower = tmp_path / "a.json", tmp_path / "b.json"
    edgecls("bench", pi_bundle, *QUICK, "-o", file)
    measured = read_result(file)
    once = measured.processes[0]
    doubled = {name: [2 * value for value in runs] for name, runs in once.runs_ms.items()}
    for path, runs in ((file, once.runs_ms), (slower, doubled)):
        process = msgspec.structs.replace(once, runs_ms=runs)
        found = msgspec.structs.replace(measured, processes=(process,) * 5, waiting=0.0)
        path.write_bytes(found.to_json())
    alike = edgecls("bench", "compare", file, file)
    worse: dict[str, Any] = json.loads(edgecls("bench", "compare", file, slower, "--json").out)
    limited = edgecls("bench", "compare", file, slower, "--max-loss", 100)

    assert (alike.code, limited.code) == (0, 0)
    assert alike.out.split("\n")[-3] == "passed"
    assert worse["ratio"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert worse["outcome"] == "failed"
    assert edgecls("bench", "compare", file, slower).code == 1
    few = tmp_path / "few.json"
    for waiting, message in ((0.0, "so few processes give no interval"), (0.06, "a busy machine")):
        few.write_bytes(msgspec.structs.replace(measured, waiting=waiting).to_json())
        undecided = edgecls("bench", "compare", few, few)
        assert undecided.code == 5
        assert message in undecided.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.png"], 4, "none.png"),
        (["none.png", "--on", "here"], 4, "none.png"),
        (["x.png", "--data", "."], 2, "not both"),
        (["--on", "here", "--on", "pi9", "-o", "x.json"], 2, "-o writes one file"),
        (["--backend", "tensorrt"], 4, "the bundle has no onnx"),
    ],
)
def test_refusals(
    edgecls: Command, pi_bundle: Path, arguments: list[str], code: int, message: str  # noqa: F811
) -> None:  # fmt: skip
    done = edgecls("bench", pi_bundle, *arguments)

    assert done.code == code
    assert message in done.err
