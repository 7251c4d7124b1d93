"""What a bundle answers on the Pi's instruction set, against x86-64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from edgecls.core.files import sha256_file
from edgecls.core.progress import Quiet
from edgecls.core.values import CALIBRATED, Logits, relative_difference
from edgecls.data.images import list_images
from edgecls.devices.virtual import VirtualPi
from edgecls.devices.virtual.machine import check_qemu
from edgecls.runtimes import load
from edgecls.runtimes.logits_file import LogitsFile
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions

if TYPE_CHECKING:
    from edgecls.core.values import Precision

    from ..conftest import Digits

pytestmark = pytest.mark.slow


def answers(pi: VirtualPi, bundle: Path, data: Path, out: Path) -> tuple[Logits, Logits]:
    """Return the logits (images, classes) of the Pi, as its command writes them, and of here."""
    done = pi.run(
        ["edgecls", "predict", str(bundle), "--data", str(data), "--save-logits", str(out)]
    )
    assert done.returncode == 0, done.stderr
    assert "note" not in done.stderr
    recorded = LogitsFile(out)
    images = list_images(data)
    there = recorded.logits([sha256_file(image.path) for image in images])
    assert recorded.header.description["xnnpack"] == "yes"
    found = load(bundle).predict_batch([image.path for image in images], logits=True)
    return there, np.array([prediction.logits for prediction in found], np.float32)


def exported(source: str, images: Path, out: Path, precision: Precision, **options: Any) -> Path:
    export(
        ExportOptions(
            source=source, targets=("raspberry-pi",), precision=precision, out=out,
            calib=images if precision in CALIBRATED else None, calib_images=16, **options,
        ),
        Quiet(),
    )  # fmt: skip
    return out / "raspberry-pi"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth random images, in every format that devices meet."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for index, (ending, mode) in enumerate(
        (ending, mode)
        for ending in ("jpg", "png", "webp", "bmp")
        for mode in ("RGB", "L", "CMYK")
        if not (mode == "CMYK" and ending != "jpg")
    ):
        channels = {"L": 1, "CMYK": 4}.get(mode, 3)
        small = random.integers(0, 256, (7, 9, channels), dtype=np.uint8)
        image = Image.fromarray(small.squeeze(), mode)
        image.resize((260 + 31 * index, 240 + 17 * index), Image.Resampling.BICUBIC).save(
            folder / f"{index}.{ending}"
        )
    return folder


def test_int8_answers_bit_for_bit(pi: VirtualPi, digits: Digits, tmp_path: Path) -> None:
    there, here = answers(pi, digits.bundle("raspberry-pi"), digits.judged, tmp_path / "logits")

    np.testing.assert_array_equal(there, here)


@pytest.mark.parametrize("model", ["torchvision:mobilenet_v2", "torchvision:resnet18"])
def test_int8_networks_answer_bit_for_bit(
    pi5: VirtualPi, pictures: Path, tmp_path: Path, model: str
) -> None:
    bundle = exported(
        model, pictures, tmp_path, "int8", allow_random_weights=True, preprocess="imagenet"
    )
    there, here = answers(pi5, bundle, pictures, tmp_path / "logits")

    np.testing.assert_array_equal(there, here)


def test_float_answers_within_rounding(
    patient_pi: VirtualPi, pictures: Path, tmp_path: Path
) -> None:
    bundle = exported(
        "torchvision:mobilenet_v2", pictures, tmp_path, "fp32", allow_random_weights=True,
        preprocess="imagenet",
    )  # fmt: skip
    there, here = answers(patient_pi, bundle, pictures, tmp_path / "logits")

    assert relative_difference(here, there) <= 1e-5


def test_a_transformer_gives_the_same_classes(
    pi5: VirtualPi, pictures: Path, tmp_path: Path
) -> None:
    bundle = exported(
        "timm:deit_tiny_patch16_224", pictures, tmp_path, "int8", allow_random_weights=True
    )
    there, here = answers(pi5, bundle, pictures, tmp_path / "logits")

    scale = np.diff(np.unique(here)).min()
    steps = np.abs(np.rint((there - here) / scale)).max()
    # Its float parts (LayerNorm) round differently; these random weights amplify every step.
    assert steps <= 32
    margin = np.sort(here, axis=1)[:, -1] - np.sort(here, axis=1)[:, -2]
    clear = margin > 2 * steps * scale
    np.testing.assert_array_equal(there.argmax(1)[clear], here.argmax(1)[clear])


def test_verify_passes_there(pi: VirtualPi, digits: Digits) -> None:
    done = pi.run(["edgecls", "verify", str(digits.bundle("raspberry-pi")), "--json"])

    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert found["description"]["xnnpack"] == "yes"
    assert [sample["logits"] for sample in found["samples"]] == [0.0] * len(found["samples"])
    assert {sample["pixel_codes"] for sample in found["samples"]} == {0}


def test_a_core_that_computes_wrongly_is_caught(pi5: VirtualPi, digits: Digits) -> None:
    """The trap: this QEMU's default core has SVE, with which int8 products are wrong."""
    if not check_qemu().startswith("7.2"):
        pytest.skip("only QEMU 7.2 is known to compute wrongly")
    bundle = str(digits.bundle("raspberry-pi"))
    done = pi5.run(["edgecls", "verify", bundle], environment={"QEMU_CPU": "max"})

    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed (model)" in done.stdout


def test_a_missing_delegate_is_caught(pi5: VirtualPi, digits: Digits, tmp_path: Path) -> None:
    """The trap: in a bare chroot XNNPACK cannot count the cores, and silently does not load."""
    root = tmp_path / "root"
    root.mkdir()
    for part in pi5.root.iterdir():
        (root / part.name).symlink_to(part)
    cpus = root / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    for name in ("possible", "present"):
        (cpus / name).touch()
    bare = VirtualPi(root)
    done = bare.run(["edgecls", "verify", str(digits.bundle("raspberry-pi"))])

    assert done.returncode == 1, done.stdout + done.stderr
    assert "XNNPACK did not load" in done.stdout


PIXELS = """
import hashlib, json, sys
from pathlib import Path
from edgecls.core.errors import ImageError
from edgecls.core.preprocess import PRESETS
from edgecls.runtimes.preprocess import to_pixels
found = {}
for line in sys.stdin:
    path = Path(json.loads(line))
    try:
        pixels = to_pixels(path, PRESETS["imagenet"])
        found[str(path)] = hashlib.sha256(pixels.tobytes()).hexdigest()
    except ImageError as error:
        found[str(path)] = error.reason
print(json.dumps(found))
"""


def pixels(command: list[str], files: list[Path], environment: dict[str, str]) -> dict[str, str]:
    lines = "".join(json.dumps(str(file)) + "\n" for file in files)
    done = subprocess.run(
        [*command, "-c", PIXELS], input=lines, capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_pixels_are_equal_bit_for_bit(pi: VirtualPi, pictures: Path) -> None:
    files = sorted(pictures.iterdir())
    there = pixels([str(pi.launchers / "python3")], files, pi.environment())

    assert there == pixels([sys.executable], files, dict(os.environ))


def test_pixels_of_photos_and_awkward_files(pi: VirtualPi, edgecls_data: Path) -> None:
    nasty = edgecls_data / "nasty"
    names = json.loads((nasty / "manifest.json").read_text())
    photos = sorted((edgecls_data / "imagenet500").rglob("*.jpg"))[::5]
    files = [*(nasty / name for name in names if not name.endswith("/")), *photos]
    there = pixels([str(pi.launchers / "python3")], files, pi.environment())
    here = pixels([sys.executable], files, dict(os.environ))

    assert len(photos) == 100
    assert there == here


def test_lite0_on_photos_bit_for_bit(
    patient_pi: VirtualPi, edgecls_data: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    for file in sorted((edgecls_data / "imagenet500").rglob("*.jpg"))[::10]:
        link = photos / file.parent.name / file.name
        link.parent.mkdir(parents=True)
        link.symlink_to(file)
    bundle = exported(
        "timm:tf_efficientnet_lite0", photos, tmp_path, "int8",
        weights=edgecls_data / "weights" / "efficientnet-lite0-57934424.pth",
    )  # fmt: skip
    there, here = answers(patient_pi, bundle, photos, tmp_path / "logits")

    np.testing.assert_array_equal(there, here)
