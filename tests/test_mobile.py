"""docs/mobile.md, its app and its measurement speak of the file that --phone writes."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecls.core.preprocess import Preprocess
from edgecls.runtimes.preprocess import to_pixels

ROOT = Path(__file__).parents[1]
ANDROID = ROOT / "examples" / "android"


def constants() -> dict[str, str]:
    text = (ANDROID / "Classifier.kt").read_text()
    return dict(re.findall(r'const val (\w+) = "?([^"\n]+)"?', text))


def test_the_page_links_to_what_is_there() -> None:
    text = (ROOT / "docs" / "mobile.md").read_text()
    links = re.findall(r"\]\((\.\./[^)]+)\)", text)

    assert {Path(link).name for link in links} == {
        "android", *(path.name for path in ANDROID.iterdir())
    }  # fmt: skip
    assert all((ROOT / "docs" / link).exists() for link in links)
    assert constants()["MODEL"] in text


def test_the_app_has_the_defaults_of_our_preprocessing() -> None:
    default = Preprocess()

    assert constants() == {
        "MODEL": "model.int8.phone.tflite", "RESIZE": str(default.resize), "CROP": str(default.crop)
    }  # fmt: skip


def test_versions_are_exact() -> None:
    text = (ANDROID / "build.gradle.kts").read_text()

    libraries = re.findall(r'implementation\("([^"]+)"\)', text)
    assert libraries
    assert all(re.fullmatch(r"[\w.-]+:[\w-]+:\d+\.\d+\.\d+", each) for each in libraries)


@pytest.mark.parametrize("size", [(640, 480), (1800, 2400), (300, 300)])
def test_the_apps_cut_is_ours(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of an image without detail, where the interpolation does not count."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    measured = importlib.import_module("phone_preprocess")
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, width)[None]
    ramp[..., 1] = np.linspace(0, 255, height)[:, None]
    image = Image.fromarray(ramp)
    file = tmp_path / "ramp.png"
    image.save(file)

    found = np.asarray(measured.as_the_app(image, 256, 224)).astype(int)

    wanted = to_pixels(file, Preprocess()).astype(int)
    assert found.shape == wanted.shape == (224, 224, 3)
    assert np.abs(found - wanted).max() <= 2
    stretched = np.asarray(measured.four_pixels(image, 224)).astype(int)
    assert np.abs(stretched - wanted).max() > 10
