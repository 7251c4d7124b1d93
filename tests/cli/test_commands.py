"""The commands on real bundles: what they print, and with which exit code they end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageChops

from edgecls.cli.main import COMMANDS
from edgecls.runtimes import images
from edgecls.targets import TARGETS

if TYPE_CHECKING:
    from ..conftest import Command, Digits

ROOT = Path(__file__).parent.parent.parent


def first_images(digits: Digits, count: int) -> list[Path]:
    return sorted(digits.judged.rglob("*.png"))[:count]


def test_help_lists_every_command(edgecls: Command) -> None:
    done = edgecls("--help")

    assert done.code == 0
    assert all(name in done.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(edgecls: Command, name: str) -> None:
    done = edgecls(name, "--help")

    assert done.code == 0
    assert "Usage:" in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert f"edgecls {name}" in (ROOT / "README.md").read_text()


def test_targets_as_json(edgecls: Command) -> None:
    done = edgecls("targets", "--json")

    assert [row["name"] for row in json.loads(done.out)] == list(TARGETS)


def test_doctor_says_what_can_run(edgecls: Command) -> None:
    done = edgecls("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.out)}

    assert done.code == 0
    assert findings["run raspberry-pi"]["state"] == "ok"
    assert edgecls("doctor").code == 0


@pytest.mark.parametrize("target", TARGETS)
def test_inspect(edgecls: Command, digits: Digits, target: str) -> None:
    done = edgecls("inspect", digits.bundle(target))
    manifest = json.loads(edgecls("inspect", digits.bundle(target), "--json").out)

    assert done.code == 0
    assert manifest["target"] == target
    assert all(artefact["path"] in done.out for artefact in manifest["artefacts"])


def test_inspect_placement(edgecls: Command, digits: Digits) -> None:
    bundle = digits.bundle("raspberry-pi")
    done = edgecls("inspect", bundle, "--placement", "--require-delegated", 100)
    found = json.loads(edgecls("inspect", bundle, "--placement", "--json").out)

    assert done.code == 0, done.err
    assert (found["backend"], found["delegated_percent"]) == ("litert", 100.0)
    assert {layer["where"] for layer in found["layers"]} == {"XNNPACK"}
    assert all(layer["operator"] in done.out for layer in found["layers"])
    assert f"100.0 % ({len(found['layers'])} of {len(found['layers'])}) of the layers" in done.out


def test_inspect_placement_is_a_gate(
    edgecls: Command, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecls.runtimes import litert_layers

    monkeypatch.setattr(litert_layers, "DELEGATE", "another name")
    done = edgecls(
        "inspect", digits.bundle("raspberry-pi"), "--placement", "--require-delegated", 95
    )

    assert done.code == 1
    assert "expected at least 95 % of the layers delegated on litert, found 0.0 % (0 of" in done.err
    assert "CONV_2D" in done.err


@pytest.mark.parametrize("option", [("--backend", "litert"), ("--require-delegated", 95)])
def test_options_of_placement_need_it(
    edgecls: Command, digits: Digits, option: tuple[object, ...]
) -> None:
    assert edgecls("inspect", digits.bundle("raspberry-pi"), *option).code == 2


@pytest.mark.parametrize("target", TARGETS)
def test_verify_recomputes_the_golden_samples(
    edgecls: Command, digits: Digits, target: str
) -> None:
    done = edgecls("verify", digits.bundle(target), "--allow-fallback")

    assert done.code == 0, done.err
    assert done.out.rstrip().endswith("passed")
    assert edgecls("verify", digits.bundle(target), "--files-only").code == 0


def test_verify_names_the_step_that_differs(
    edgecls: Command, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = images._convert
    monkeypatch.setattr(images, "_convert", lambda *arguments: ImageChops.invert(real(*arguments)))

    table = edgecls("verify", digits.bundle("raspberry-pi"))
    found = json.loads(edgecls("verify", digits.bundle("raspberry-pi"), "--json").out)

    assert table.code == 1
    assert "failed (decode)" in table.out
    assert {sample["step"] for sample in found["samples"]} == {"decode"}


@pytest.mark.parametrize("target", TARGETS)
def test_predict_json_has_the_agreed_form(edgecls: Command, digits: Digits, target: str) -> None:
    images = first_images(digits, 3)
    done = edgecls("predict", digits.bundle(target), *images, "--json", "--topk", 2,
                   "--allow-fallback")  # fmt: skip
    lines = [json.loads(line) for line in done.out.splitlines()]

    assert done.code == 0, done.err
    assert [line["image"] for line in lines] == [str(image) for image in images]
    for line in lines:
        assert set(line) == {"image", "topk", "speed_ms"}
        assert [set(entry) for entry in line["topk"]] == [{"index", "label", "score"}] * 2
        assert line["topk"][0]["label"] == str(line["topk"][0]["index"])
        assert line["topk"][0]["score"] >= line["topk"][1]["score"]


def test_targets_agree_on_every_answer(edgecls: Command, digits: Digits) -> None:
    images = first_images(digits, 20)
    answers = []
    for target in TARGETS:
        done = edgecls("predict", digits.bundle(target), *images, "--json", "--allow-fallback")
        answers.append([json.loads(line)["topk"][0]["index"] for line in done.out.splitlines()])

    assert answers[0] == answers[1] == answers[2]


def test_a_bad_image_does_not_stop_the_others(
    edgecls: Command, digits: Digits, tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    good = first_images(digits, 2)
    done = edgecls("predict", digits.bundle("raspberry-pi"), good[0], tmp_path / "empty.jpg",
                   tmp_path, tmp_path / "missing.png", good[1], "--json")  # fmt: skip
    lines = [json.loads(line) for line in done.out.splitlines()]

    assert done.code == 4
    assert [set(line) == {"image", "error"} for line in lines] == [False, True, True, True, False]
    assert "Traceback" not in done.err


def test_a_bundle_for_another_device_says_why_not(edgecls: Command, digits: Digits) -> None:
    done = edgecls("predict", digits.bundle("jetson"), *first_images(digits, 1))

    assert done.code == 3
    assert "tensorrt" in done.err
    assert "--backend onnxruntime" in done.err
    assert done.out == ""


def test_drift_passes_and_writes_reports(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    done = edgecls(
        "drift", digits.bundle("raspberry-pi"), "--reference", "lenet5", "--weights",
        digits.weights, "--data", digits.judged, "--json", "--report", tmp_path / "r.json",
        "--report", tmp_path / "r.md",
    )  # fmt: skip
    report = json.loads(done.out)

    assert done.code == 0, done.err
    assert report["verdict"]["outcome"] == "passed"
    assert report["metrics"]["images"] == 1000
    assert report["summary"]["reference_top1"] > 95
    assert report["verdict"]["checks"][0]["upper"] < 1.0
    assert json.loads((tmp_path / "r.json").read_text()) == report
    assert (tmp_path / "r.md").read_text().startswith("# Drift: passed")


@pytest.mark.parametrize(
    ("precision", "layers"), [("fp16", ""), ("int8-weights", ""), ("int8-dynamic", "3 of 5")]
)
def test_precisions_without_images(
    edgecls: Command, digits: Digits, tmp_path: Path, precision: str, layers: str
) -> None:
    made = edgecls(
        "export", "lenet5", "--weights", digits.weights, "--target", "raspberry-pi",
        "--precision", precision, "-o", tmp_path,
    )  # fmt: skip
    bundle = tmp_path / "raspberry-pi"
    judged = edgecls(
        "drift", bundle, "--reference", "lenet5", "--weights", digits.weights, "--data",
        digits.judged, "--images", 200, "--max-drop", 2, "--min-agreement", 98,
    )  # fmt: skip
    shown = edgecls("inspect", bundle).out

    assert made.code == 0, made.err
    for table in (made.out, shown):
        line = next(line for line in table.splitlines() if f"model.{precision}.tflite" in line)
        assert layers in line
        assert (" of " in line) == bool(layers)
    assert edgecls("verify", bundle).code == 0
    assert judged.code == 0, judged.out
    done = edgecls("predict", bundle, *first_images(digits, 2), "--json")
    assert done.code == 0
    assert len(done.out.splitlines()) == 2


def test_what_tflite_runtime_computes_wrongly_is_not_run_on_it(
    edgecls: Command, digits: Digits, tmp_path: Path
) -> None:
    edgecls("export", "lenet5", "--weights", digits.weights, "--target", "raspberry-pi",
            "--precision", "int8-dynamic", "-o", tmp_path)  # fmt: skip
    image = first_images(digits, 1)[0]
    done = edgecls("predict", tmp_path / "raspberry-pi", image, "--backend", "tflite-runtime")

    assert done.code == 3
    assert "computes int8-dynamic files wrongly" in done.err
    assert done.out == ""


def test_drift_against_a_bundle(edgecls: Command, digits: Digits) -> None:
    done = edgecls(
        "drift", digits.bundle("raspberry-pi"), "--reference", digits.bundle("jetson"),
        "--data", digits.judged, "--images", 50, "--min-agreement", 90, "--max-drop", 10,
    )  # fmt: skip

    assert done.code == 0, done.err
    assert "onnxruntime" in done.out


def test_drift_fails_on_swapped_answers(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    """A reference with other weights agrees with nothing: the gate must say so."""
    import safetensors.torch
    import torch

    weights = safetensors.torch.load_file(digits.weights)
    head = max(name for name in weights if name.endswith("weight") and weights[name].ndim == 2)
    other = tmp_path / "other.safetensors"
    swapped = dict(weights)
    swapped[head] = torch.roll(weights[head], 1, 0).contiguous()
    safetensors.torch.save_file(swapped, other)
    done = edgecls(
        "drift", digits.bundle("raspberry-pi"), "--reference", "lenet5", "--weights", other,
        "--data", digits.judged, "--images", 100, "--min-agreement", 97,
    )  # fmt: skip

    assert done.code == 1
    assert "failed" in done.out


def test_config_file_gives_the_options(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    shutil.copytree(digits.train, tmp_path / "images")
    shutil.copy(digits.weights, tmp_path / "w.safetensors")
    (tmp_path / "edgecls.toml").write_text(
        '[export]\nmodel = "lenet5"\ntarget = ["raspberry-pi"]\nweights = "w.safetensors"\n'
        'calib = "images"\ncalib-images = 20\nout = "made"\n'
    )
    done = edgecls("export", "-c", tmp_path / "edgecls.toml", "--seed", 5)
    manifest = json.loads(edgecls("inspect", tmp_path / "made/raspberry-pi", "--json").out)

    assert done.code == 0, done.err
    assert manifest["calibration"]["images"] == 20
    assert manifest["calibration"]["seed"] == 5


def test_config_with_an_unknown_key_is_refused(edgecls: Command, tmp_path: Path) -> None:
    (tmp_path / "edgecls.toml").write_text('[export]\nmodle = "lenet5"\n')
    done = edgecls("export", "-c", tmp_path / "edgecls.toml")

    assert done.code == 2
    assert "'modle'" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--target", "toaster", "--precision", "fp32"], 2, "jetson, raspberry-pi, desktop-gpu"),
        (["--target", "jetson", "--precision", "int8-weights"], 2, "does not run int8-weights"),
        (["--target", "jetson"], 2, "--calib DIR"),
        (["--target", "jetson", "--precision", "fp16", "--preprocess", "nope"], 4, "nor a file"),
        (["--precision", "fp32"], 2, "--target"),
        (["--target", "jetson", "--precision", "fp32", "--labels", "{labels}"], 4, "3"),
        (["--target", "jetson", "--calib", "{empty}"], 4, "no image"),
        (["--target", "jetson", "--calib", "{hostile}"], 4, "none of 2"),
        (["--target", "jetson", "--precision", "fp32", "--weights", "{junk}"], 4, "junk.pth"),
        (["--target", "jetson", "--precision", "fp32", "--preprocess", "imagenet"], 4, "channel"),
    ],
)
def test_export_refuses_what_cannot_work(
    edgecls: Command, digits: Digits, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile/a.jpg").write_bytes(b"")
    (tmp_path / "hostile/b.png").write_text("<html>")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    paths = {
        "{empty}": "empty", "{hostile}": "hostile", "{labels}": "labels.txt", "{junk}": "junk.pth",
    }  # fmt: skip
    given = [str(tmp_path / paths[a]) if a in paths else a for a in arguments]
    weights = [] if "--weights" in given else ["--weights", digits.weights]
    done = edgecls("export", "lenet5", *given, *weights, "-o", tmp_path / "out")

    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_random_weights_are_refused(edgecls: Command, tmp_path: Path) -> None:
    done = edgecls("export", "lenet5", "--target", "jetson", "--precision", "fp32",
                   "-o", tmp_path / "out")  # fmt: skip

    assert done.code == 2
    assert "random weights" in done.err


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08\x0a" + bytes(300)])
def test_a_broken_onnx_is_refused(edgecls: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    done = edgecls("export", tmp_path / "m.onnx", "--target", "jetson", "--precision", "fp32",
                   "--preprocess", "imagenet", "-o", tmp_path / "out")  # fmt: skip

    assert done.code == 4, done.err
    assert not (tmp_path / "out").exists()


def test_a_changed_bundle_is_refused(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(digits.bundle("raspberry-pi"), bundle)
    model = bundle / "model.int8.tflite"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)

    for command in (["verify", bundle], ["predict", bundle, first_images(digits, 1)[0]]):
        done = edgecls(*command)
        assert done.code == 4
        assert "model.int8.tflite" in done.err


def test_exported_pixels_survive_another_colour_mode(
    edgecls: Command, digits: Digits, tmp_path: Path
) -> None:
    source = first_images(digits, 1)[0]
    grey = np.asarray(Image.open(source).convert("L"))
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "rgb.png")
    lines = [
        json.loads(edgecls("predict", digits.bundle("raspberry-pi"), image, "--json").out)
        for image in (source, tmp_path / "rgb.png")
    ]

    assert lines[0]["topk"] == lines[1]["topk"]
