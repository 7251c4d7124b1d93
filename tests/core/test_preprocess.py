from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgecls.core.errors import PreprocessError
from edgecls.core.preprocess import PRESETS, Preprocess, resolve_preprocess
from edgecls.core.values import relative_difference


def test_table_is_the_formula_rounded_once() -> None:
    preprocess = PRESETS["imagenet"]
    table = preprocess.table()

    assert table.shape == (3, 256)
    assert table.dtype == np.float32
    assert table[1, 200] == np.float32((200 / 255.0 - 0.456) / 0.224)


def test_normalize_puts_channels_first() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    preprocess = PRESETS["cifar10"]

    tensor = preprocess.normalize(pixels)

    assert tensor.shape == (2, 3, 4, 5)
    expected = (pixels / 255.0 - np.array(preprocess.mean)) / np.array(preprocess.std)
    assert np.array_equal(tensor, expected.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize(
    ("resize", "crop", "expected"),
    [
        (256, 224, (224, 224)),
        (256, (200, 100), (200, 100)),
        ((96, 64), 0, (96, 64)),
        (0, 32, (32, 32)),
        (0, 0, None),
        (256, 0, None),
    ],
)
def test_output_size(
    resize: int | tuple[int, int], crop: int | tuple[int, int], expected: tuple[int, int] | None
) -> None:
    assert Preprocess(resize=resize, crop=crop).output_size == expected


def test_a_toml_file_says_all(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(
        '[preprocess]\ncolor = "bgr"\nresize = [128, 96]\ncrop = 0\ninterpolation = "bilinear"\n'
        "scale = 1.0\nmean = [104.0, 117.0, 123.0]\nstd = [1.0, 1.0, 1.0]\nexif = false\n"
    )

    assert resolve_preprocess(str(file)) == Preprocess(
        color="bgr", resize=(128, 96), crop=0, interpolation="bilinear", scale=1.0,
        mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0), exif=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("crop = -1", "crop"),
        ("crop = 100000", "8192"),
        ("std = [0.0, 1.0, 1.0]", "positive"),
        ("mean = [0.5]", "3 values"),
        ("size = 224", "unknown field"),
        ('color = "cmyk"', "cmyk"),
        ("scale = nan", "finite"),
        ("scale = 1e-300", "float32 does not hold"),
        ("crop = [", "end of document"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "p.toml"
    file.write_text(f"[preprocess]\n{line}\n")

    with pytest.raises(PreprocessError, match=said):
        resolve_preprocess(str(file))


def test_an_unknown_name_lists_the_presets() -> None:
    with pytest.raises(PreprocessError, match="imagenet, inception, mnist, cifar10"):
        resolve_preprocess("imagnet")


def test_survives_json() -> None:
    for preset in PRESETS.values():
        assert msgspec.json.decode(msgspec.json.encode(preset), type=Preprocess) == preset


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([0.0], [1.0], float("inf")),
        ([1.0], [float("nan")], float("inf")),
    ],
)
def test_relative_difference(expected: list[float], found: list[float], difference: float) -> None:
    assert relative_difference(np.array(expected), np.array(found)) == difference


def test_a_table_among_others_is_found(tmp_path: Path) -> None:
    file = tmp_path / "edgecls.toml"
    file.write_text('[export]\nmodel = "lenet5"\n\n[preprocess]\ncrop = 96\n')

    assert resolve_preprocess(str(file)) == Preprocess(crop=96)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"draft": -1}, "draft must lie in 0..4"),
        ({"draft": 5}, "draft must lie in 0..4"),
        ({"draft": 1, "interpolation": "nearest"}, "another interpolation than nearest"),
        ({"draft": 1, "interpolation": "bilinear", "antialias": False}, "antialias = true"),
    ],
)
def test_a_draft_that_cannot_be_meant(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocess(**fields)


def test_what_was_written_before_draft_decodes_in_full() -> None:
    before = msgspec.to_builtins(Preprocess())
    del before["draft"]

    assert msgspec.convert(before, Preprocess) == Preprocess(draft=0)


def test_what_a_reader_does_not_know_is_refused() -> None:
    """So an older edgecls, which knows no draft, refuses a bundle that reduces JPEG files."""
    with pytest.raises(msgspec.ValidationError, match="unknown field `draught`"):
        msgspec.convert({**msgspec.to_builtins(Preprocess()), "draught": 1}, Preprocess)
