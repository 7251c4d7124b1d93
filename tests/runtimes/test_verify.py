from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import PIL
import pytest

from edgecls.bundle import Bundle, write_bundle
from edgecls.core.errors import BackendUnavailableError, BundleError
from edgecls.runtimes import load
from edgecls.runtimes.litert import LiteRTBackend
from edgecls.runtimes.preprocess import pixels_from_png, pixels_to_png
from edgecls.runtimes.verify import verify

from .conftest import Made, MakeBundle, encoded, photo


def rewrite(path: Path, **changes: bytes) -> None:
    """Write the bundle again with other golden files: hashes fit, contents do not."""
    bundle = Bundle(path)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    for name in changes:
        assert name in files
    write_bundle(path, bundle.manifest, files | changes)


def moved(path: Path, *, by: int) -> bytes:
    """The first golden pixels with one code changed."""
    pixels = pixels_from_png(Bundle(path).read("golden/0.pixels.png")).copy()
    value = int(pixels[3, 4, 1])
    pixels[3, 4, 1] = value + by if value + by <= 255 else value - by
    return pixels_to_png(pixels)


def test_missing_kernels_are_a_failure(pi_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiteRTBackend, "_delegated", lambda self: False)

    found = verify(load(pi_bundle, precision="fp32"))

    assert not found.passed
    assert found.problem is not None
    assert "XNNPACK did not load" in found.problem
    assert all(sample.state == "passed" for sample in found.samples)


@pytest.mark.parametrize(
    ("name", "backend", "precision"),
    [("pi_bundle", None, "fp32"), ("jetson_bundle", "onnxruntime", None)],
)
def test_a_sound_bundle_passes(
    request: pytest.FixtureRequest, name: str, backend: Any, precision: Any
) -> None:
    found = verify(load(request.getfixturevalue(name), backend=backend, precision=precision))

    assert found.passed
    assert [sample.state for sample in found.samples] == ["passed", "passed"]
    assert [sample.pixel_codes for sample in found.samples] == [0, 0]
    assert all(sample.logits <= 1e-5 and not sample.message for sample in found.samples)


def older(path: Path) -> None:
    """Write the bundle again as versions did that kept no hashes of the steps."""
    bundle = Bundle(path)
    golden = tuple(
        msgspec.structs.replace(sample, steps={}, tensors={}) for sample in bundle.manifest.golden
    )
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    write_bundle(path, msgspec.structs.replace(bundle.manifest, golden=golden), files)


def test_an_older_bundle_is_verified_more_coarsely(pi_bundle: Path) -> None:
    older(pi_bundle)
    assert verify(load(pi_bundle, precision="fp32")).passed
    changes = {"golden/0.png": encoded(photo(9)), "golden/1.f32": bytes(20)}
    rewrite(pi_bundle, **changes)

    first, second = verify(load(pi_bundle, precision="fp32")).samples

    assert (first.state, first.step) == ("failed", "resize")
    assert (second.state, second.step) == ("failed", "inference")


def test_one_code_is_a_warning_that_names_both_decoders(pi_bundle: Path) -> None:
    rewrite(pi_bundle, **{"golden/0.pixels.png": moved(pi_bundle, by=1)})

    first, second = verify(load(pi_bundle, precision="int8")).samples

    assert (first.state, first.pixel_codes, first.step) == ("warning", 1, "decode")
    assert f"exported with Pillow 1.2.3, read here with Pillow {PIL.__version__}" in first.message
    assert "1 of 432 pixel codes differ by up to 1" in first.message
    assert second.state == "passed"


def test_more_than_one_code_fails_and_names_the_step(pi_bundle: Path) -> None:
    rewrite(pi_bundle, **{"golden/0.pixels.png": moved(pi_bundle, by=2)})

    found = verify(load(pi_bundle, precision="int8"))

    assert not found.passed
    assert (found.samples[0].state, found.samples[0].pixel_codes) == ("failed", 2)
    assert found.samples[0].step == "decode"


def test_other_logits_fail_at_the_model(pi_bundle: Path) -> None:
    logits = np.frombuffer(Bundle(pi_bundle).read("golden/1.f32"), "<f4").copy()
    logits[int(np.abs(logits).argmax())] *= 1.2
    rewrite(pi_bundle, **{"golden/1.f32": logits.tobytes()})

    first, second = verify(load(pi_bundle, precision="fp32")).samples

    assert first.state == "passed"
    assert (second.state, second.step) == ("failed", "model")
    assert second.logits == pytest.approx(0.2 / 1.2, rel=1e-3)
    assert second.limit == 1e-4
    assert "at most 0.0001 is allowed for fp32 on raspberry-pi" in second.message


def test_logits_that_are_not_finite_fail(pi_bundle: Path) -> None:
    logits = np.full(5, np.nan, "<f4")
    rewrite(pi_bundle, **{"golden/0.f32": logits.tobytes()})

    assert verify(load(pi_bundle, precision="fp32")).samples[0].state == "failed"


@pytest.mark.parametrize(
    ("image", "message"),
    [(b"<html>", "not an image"), (encoded(photo(9)), "pixel codes differ")],
)
def test_another_image_fails(pi_bundle: Path, image: bytes, message: str) -> None:
    rewrite(pi_bundle, **{"golden/0.png": image})

    sample = verify(load(pi_bundle, precision="fp32")).samples[0]

    assert (sample.state, sample.step) == ("failed", "decode")
    assert message in sample.message
    assert sample.logits <= sample.limit


def test_a_changed_byte_is_found_before_anything_runs(pi_bundle: Path) -> None:
    file = pi_bundle / "model.fp32.tflite"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    with pytest.raises(BundleError, match=r"model\.fp32\.tflite is not the file"):
        verify(load(pi_bundle, precision="int8"))


def test_a_bundle_without_samples_proves_nothing(
    make_bundle: MakeBundle, tflite_float: bytes
) -> None:
    path = make_bundle(Made("m.tflite", "tflite", "fp32", tflite_float), golden=0)

    with pytest.raises(BundleError, match="no golden samples"):
        verify(load(path))


def test_logits_of_another_length_are_refused(pi_bundle: Path) -> None:
    rewrite(pi_bundle, **{"golden/0.f32": bytes(16)})

    with pytest.raises(BundleError, match="16 bytes, expected 20"):
        verify(load(pi_bundle))


def test_logits_of_what_runs_must_be_there(pi_bundle: Path) -> None:
    bundle = Bundle(pi_bundle)
    golden = tuple(
        msgspec.structs.replace(sample, logits={"model.int8.tflite": "golden/0.f32"})
        for sample in bundle.manifest.golden
    )
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    write_bundle(pi_bundle, msgspec.structs.replace(bundle.manifest, golden=golden), files)

    with pytest.raises(BundleError, match=r"no logits of model\.fp32\.tflite"):
        verify(load(pi_bundle, precision="fp32"))


def test_a_simulation_is_asked_for(jetson_bundle: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="--backend onnxruntime"):
        verify(load(jetson_bundle))

    found = verify(load(jetson_bundle, allow_fallback=True))

    assert (found.backend, found.passed) == ("onnxruntime", True)
    assert "tensorrt" in str(found.fell_back)
