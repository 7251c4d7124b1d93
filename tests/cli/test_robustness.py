"""What careless and hostile use meets: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from edgecls.bundle import Bundle
from edgecls.export.torch_onnx import TorchToOnnx
from edgecls.models import load_model

if TYPE_CHECKING:
    from ..conftest import Command, Digits


def trained(digits: Digits) -> torch.nn.Module:
    module = load_model("lenet5", weights=digits.weights).module
    assert module is not None
    return module


def onnx_file(module: torch.nn.Module, path: Path, batch: int | None = None) -> Path:
    model = TorchToOnnx(input_size=(1, 28, 28), fixed_batch=batch)(module)
    path.write_bytes(model.SerializeToString())
    return path


def first_image(digits: Digits) -> Path:
    return min(digits.judged.rglob("*.png"))


@pytest.mark.parametrize("head", ["Softmax", "LogSoftmax"])
def test_a_softmax_is_taken_off(
    edgecls: Command, digits: Digits, tmp_path: Path, head: str
) -> None:
    module = torch.nn.Sequential(trained(digits), getattr(torch.nn, head)(dim=1)).eval()
    file = onnx_file(module, tmp_path / "m.onnx")
    done = edgecls("export", file, "--target", "raspberry-pi", "--calib", digits.train,
                   "--preprocess", "mnist", "-o", tmp_path / "out")  # fmt: skip

    assert done.code == 0, done.err
    assert "ends in a softmax" in done.err
    image = first_image(digits)
    scores = [
        json.loads(edgecls("predict", bundle, image, "--json").out)["topk"][0]["score"]
        for bundle in (digits.bundle("raspberry-pi"), tmp_path / "out/raspberry-pi")
    ]
    assert scores[1] == pytest.approx(scores[0], abs=0.05)
    done = edgecls("drift", tmp_path / "out/raspberry-pi", "--reference", file, "--data",
                   digits.judged, "--images", 50, "--max-drop", 10, "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["differences"]["mean"] < 0.2, "on one scale"


def test_a_sigmoid_head_is_refused(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    module = torch.nn.Sequential(trained(digits), torch.nn.Sigmoid()).eval()
    file = onnx_file(module, tmp_path / "m.onnx")
    done = edgecls("export", file, "--target", "jetson", "--precision", "fp32",
                   "--preprocess", "mnist", "-o", tmp_path / "out")  # fmt: skip

    assert done.code == 4
    assert "multi-label" in done.err


@pytest.mark.parametrize(("batch", "code"), [(1, 0), (3, 4)])
def test_a_fixed_batch_must_be_one(
    edgecls: Command, digits: Digits, tmp_path: Path, batch: int, code: int
) -> None:
    file = onnx_file(trained(digits), tmp_path / "m.onnx", batch=batch)
    done = edgecls("export", file, "--target", "raspberry-pi", "--calib", digits.train,
                   "--preprocess", "mnist", "-o", tmp_path / "out")  # fmt: skip

    assert done.code == code, done.err
    assert (code == 0) == (tmp_path / "out").exists()


def test_a_flipped_bit_in_a_checkpoint_is_found(
    edgecls: Command, digits: Digits, tmp_path: Path
) -> None:
    good = tmp_path / "good.pth"
    torch.save(safetensors.torch.load_file(digits.weights), good)
    with zipfile.ZipFile(good) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    data = bytearray(good.read_bytes())
    data[largest.header_offset + largest.file_size // 2] ^= 1
    (tmp_path / "bad.pth").write_bytes(data)
    done = edgecls("export", "lenet5", "--weights", tmp_path / "bad.pth", "--target", "jetson",
                   "--precision", "fp32", "-o", tmp_path / "out")  # fmt: skip

    assert done.code == 4
    assert "checksum" in done.err


def test_large_photos_are_the_samples_too(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(5):
        noise = np.random.default_rng(seed).integers(0, 256, (700, 900), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{seed}.png")
    done = edgecls("export", "lenet5", "--weights", digits.weights, "--target", "raspberry-pi",
                   "--calib", folder, "-o", tmp_path / "out")  # fmt: skip
    manifest = Bundle(tmp_path / "out/raspberry-pi").manifest

    assert done.code == 0, done.err
    assert manifest.golden_source == "calibration"
    assert all(manifest.files[sample.image].size_bytes <= 256 << 10 for sample in manifest.golden)
    assert edgecls("verify", tmp_path / "out/raspberry-pi").code == 0


def test_too_few_images_are_said(edgecls: Command, digits: Digits, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(first_image(digits), folder / "0.png")
    done = edgecls("export", "lenet5", "--weights", digits.weights, "--target", "raspberry-pi",
                   "--calib", folder, "-o", tmp_path / "out")  # fmt: skip

    assert done.code == 0
    assert "synthetic" in done.err


def test_a_folder_that_is_no_bundle_is_not_replaced(
    edgecls: Command, digits: Digits, tmp_path: Path
) -> None:
    mine = tmp_path / "jetson" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    done = edgecls("export", "lenet5", "--weights", digits.weights, "--target", "jetson",
                   "--precision", "fp32", "-o", tmp_path)  # fmt: skip

    assert done.code == 2
    assert mine.read_text() == "precious"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[drfit]\nmax-drop = 0.1\n", "[drfit]"),
        ('[export]\nconfig = "x"\n', "'config'"),
        ("[export]\nseed = 1.5\n", "whole number"),
        ('[export]\nweights = ["a", "b"]\n', "one value"),
        ("[export]\nmodel = [\n", "edgecls.toml"),
    ],
)
def test_a_wrong_file_of_options_is_refused(
    edgecls: Command, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "edgecls.toml").write_text(text)
    done = edgecls("export", "-c", tmp_path / "edgecls.toml")

    assert done.code == 2
    assert said in done.err


def test_options_of_a_file_do_not_depend_on_the_folder(
    edgecls: Command, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits.bundle("raspberry-pi"), tmp_path / "pi")
    shutil.copytree(digits.bundle("jetson"), tmp_path / "jetson")
    shutil.copytree(digits.judged, tmp_path / "digits")
    (tmp_path / "edgecls.toml").write_text(
        '[drift]\nbundle = "pi"\nreference = "jetson"\ndata = "digits"\nimages = 20\n'
        "min-agreement = 80\nmax-drop = 20\n[preprocess]\ncrop = 28\n"
    )
    monkeypatch.chdir("/")
    done = edgecls("drift", "-c", tmp_path / "edgecls.toml")

    assert done.code == 0, done.err
    assert "onnxruntime (simulated)" in done.out


def test_an_unreadable_image_is_no_clean_pass(
    edgecls: Command, digits: Digits, tmp_path: Path
) -> None:
    folder = tmp_path / "digits"
    shutil.copytree(digits.judged, folder)
    bad = min(folder.rglob("*.png")).with_name("zero.png")
    bad.touch()
    done = edgecls("drift", digits.bundle("raspberry-pi"), "--reference", "lenet5", "--weights",
                   digits.weights, "--data", folder)  # fmt: skip

    assert done.code == 4
    assert "zero.png" in done.out


def test_a_model_that_exits_does_not_choose_our_code(
    edgecls: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quitter.py").write_text("import sys\ndef make():\n    sys.exit(5)\n")
    monkeypatch.chdir(tmp_path)
    done = edgecls("export", "quitter:make", "--target", "jetson", "--precision", "fp32",
                   "--preprocess", "imagenet", "-o", tmp_path / "out")  # fmt: skip

    assert done.code == 4
    assert "SystemExit" in done.err


def test_control_characters_stay_off_the_terminal(edgecls: Command, digits: Digits) -> None:
    done = edgecls("predict", digits.bundle("raspberry-pi"), "no\nerror: such \x1b[31mfile.jpg")

    assert done.code == 4
    assert len(done.err.splitlines()) == 1
    assert "\x1b" not in done.err


def test_names_are_not_taken_for_paths(
    edgecls: Command, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("raspberry-pi", "mnist", "lenet5"):
        (tmp_path / "conf" / name).mkdir(parents=True)
    (tmp_path / "conf/edgecls.toml").write_text(
        '[export]\nmodel = "lenet5"\ntarget = "raspberry-pi"\npreprocess = "mnist"\n'
        f'weights = "{digits.weights}"\nprecision = "fp32"\nout = "."\n'
    )
    monkeypatch.chdir(tmp_path)
    done = edgecls("export", "-c", "conf/edgecls.toml")

    assert done.code == 0, done.err
    assert (tmp_path / "conf/raspberry-pi/manifest.json").is_file()


@pytest.mark.parametrize("offset", range(1, 60, 7))
def test_a_damaged_index_of_a_checkpoint_is_bad_input(
    edgecls: Command, digits: Digits, tmp_path: Path, offset: int
) -> None:
    file = tmp_path / "w.pth"
    torch.save(safetensors.torch.load_file(digits.weights), file)
    data = bytearray(file.read_bytes())
    data[data.rindex(b"PK\x01\x02") + offset] ^= 8
    file.write_bytes(data)
    done = edgecls("export", "lenet5", "--weights", file, "--target", "jetson", "--precision",
                   "fp32", "-o", tmp_path / "out")  # fmt: skip

    assert done.code in {0, 4}, done.err


def run_in_shell(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "edgecls", *map(str, arguments)]
    shell = ["bash", "-c", command, "bash", *words]
    return subprocess.run(shell, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("closing", ["2>&-", ">&-", ">&- 2>&-"])
def test_closed_streams_are_no_bug(digits: Digits, closing: str) -> None:
    done = run_in_shell(
        f'"$@" {closing}', "predict", digits.bundle("raspberry-pi"), first_image(digits)
    )

    assert done.returncode == 0, done.stderr
    done = run_in_shell(f'"$@" {closing}', "inspect", digits.bundle("raspberry-pi"))

    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_is_no_failed_gate(digits: Digits) -> None:
    images = sorted(digits.judged.rglob("*.png"))
    done = run_in_shell(
        '"$@" | head -1 >/dev/null; exit ${PIPESTATUS[0]}',
        "predict", digits.bundle("raspberry-pi"), *images,
    )  # fmt: skip

    assert done.returncode == 141
    assert done.stderr == ""
