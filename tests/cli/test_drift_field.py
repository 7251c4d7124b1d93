"""``edgecls drift --field`` from a server's counts to an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import numpy as np
import pytest

from edgecls.bundle import Bundle
from edgecls.runtimes import load
from edgecls.runtimes.preprocess import to_pixels
from edgecls.workflows.sketch import Sketch

if TYPE_CHECKING:
    from ..conftest import Command, Digits

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(digits: Digits) -> Path:
    return digits.bundle("raspberry-pi")


def sketch(bundle: Path, images: list[Path], out: Path, brighter: int = 0) -> Path:
    """Write what a server counts that saw these images."""
    predictor = load(bundle)
    made = Sketch(1)
    for image in images:
        pixels = to_pixels(image.read_bytes(), predictor.bundle.manifest.preprocess)
        pixels = np.clip(pixels.astype(int) + brighter, 0, 255).astype(np.uint8)
        made.add_pixels(pixels)
        made.add_logits(predictor.logits(pixels[None]))
    predictor.close()
    write(out, predictor.bundle.sha256, msgspec.to_builtins(made.fingerprint()))
    return out


def write(out: Path, sha256: str, fingerprint: Any) -> Path:
    found = {"bundle_sha256": sha256, "tool": "0", "fingerprint": fingerprint}
    out.write_text(json.dumps(found))
    return out


def images(digits: Digits, *classes: str) -> list[Path]:
    every = sorted(digits.judged.rglob("*.png"))
    return [image for image in every if not classes or image.parent.name[0] in classes]


def test_the_same_kind_of_digits_passes(
    edgecls: Command, digits: Digits, bundle: Path, tmp_path: Path
) -> None:
    field = sketch(bundle, images(digits), tmp_path / "field.json")

    done = edgecls("drift", "--field", field, "--bundle", bundle, "--max-shift", 30)
    strict = edgecls("drift", "--field", field, bundle, "--max-shift", 5)

    assert (done.code, done.err) == (0, "")
    assert "no statistic of the images has moved" in done.out
    assert strict.code == 5, strict.out
    assert "would" in strict.out


def test_brighter_images_fail_by_name(
    edgecls: Command, digits: Digits, bundle: Path, tmp_path: Path
) -> None:
    field = sketch(bundle, images(digits)[::4], tmp_path / "field.json", brighter=60)

    done = edgecls("drift", "--field", field, "--bundle", bundle, "--json")

    found = json.loads(done.out)
    schema = json.loads((ROOT / "docs" / "schemas" / "drift-field.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    assert (done.code, found["outcome"]) == (1, "failed")
    assert found["checks"][0]["statistic"] == "pixels (gray)"
    assert found["checks"][0]["outcome"] == "failed"
    assert found["bundle_sha256"] == Bundle(bundle).sha256


def test_other_classes_fail_by_name(
    edgecls: Command, digits: Digits, bundle: Path, tmp_path: Path
) -> None:
    field = sketch(bundle, images(digits, "0", "1"), tmp_path / "field.json")

    done = edgecls("drift", "--field", field, "--bundle", bundle)

    assert done.code == 1
    assert "moved away from the calibration's: classes." in done.out
    assert "changed most: " in done.out


def test_a_bundle_without_calibration_images(
    edgecls: Command, digits: Digits, tmp_path: Path
) -> None:
    made = edgecls(
        "export", "lenet5", "--weights", digits.weights, "--target", "raspberry-pi",
        "--num-classes", 10, "--preprocess", "mnist", "--precision", "fp32", "--out", tmp_path,
    )  # fmt: skip
    assert made.code == 0, made.err
    bundle = tmp_path / "raspberry-pi"

    done = edgecls("drift", "--field", write(tmp_path / "f.json", "", {}), "--bundle", bundle)

    assert done.code == 4
    assert "has no fingerprint" in done.err
    assert "--calib" in done.err


def test_a_sketch_of_another_bundle(
    edgecls: Command, digits: Digits, bundle: Path, tmp_path: Path
) -> None:
    fingerprint = msgspec.to_builtins(Bundle(bundle).manifest.fingerprint)
    other = Bundle(digits.bundle("jetson")).sha256

    done = edgecls(
        "drift", "--field", write(tmp_path / "f.json", other, fingerprint), "--bundle", bundle
    )

    assert done.code == 4
    assert "give the bundle that the server runs" in done.err


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, '{"bundle_sha256": 1}', "\xff"])
def test_no_sketch(edgecls: Command, bundle: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "f.json"
    file.write_text(text, encoding="latin-1")

    done = edgecls("drift", "--field", file, "--bundle", bundle)

    assert done.code == 4
    assert "expected what a server's /v1/field answers" in done.err


def test_what_does_not_go_together(edgecls: Command, bundle: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (["--field", "x"], "--field takes one bundle"),
        (["--field", "x", "--bundle", bundle, bundle], "--field takes one bundle"),
        (["--field", "x", bundle, "--max-drop", 1], "--max-drop is for"),
        ([bundle, "--reference", bundle, "--max-shift", 9], "--max-shift is for --field"),
    ):
        done = edgecls("drift", *arguments)

        assert done.code == 2, done.err
        assert said in done.err
    missing = edgecls("drift", "--field", tmp_path / "none.json", "--bundle", bundle)
    assert missing.code == 4
    assert "No such file" in missing.err
