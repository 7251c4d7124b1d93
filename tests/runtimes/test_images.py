from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edgecls.core.errors import ImageError
from edgecls.core.preprocess import PRESETS, Preprocess
from edgecls.runtimes.images import MAX_PIXELS, name_of, read_image
from edgecls.runtimes.preprocess import to_pixels

from .conftest import encoded, photo

KEEP = Preprocess(resize=0, crop=0)
GRAY = Preprocess(color="gray", resize=0, crop=0, mean=(0.0,), std=(1.0,))


def codes(source: Any, preprocess: Preprocess = KEEP) -> Any:
    return np.asarray(read_image(source, preprocess))


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG"])
def test_every_format_is_what_pillow_reads(file_format: str) -> None:
    data = encoded(photo(), file_format)
    if file_format in {"PNG", "BMP", "TIFF", "PPM"}:
        expected = photo()
    else:
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB"))

    np.testing.assert_array_equal(codes(data), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_is_converted_as_pillow_does(mode: str) -> None:
    image = Image.fromarray(photo()).convert("RGBA").convert("RGB")
    image = image.convert("P").convert(mode) if mode == "PA" else image.convert(mode)

    np.testing.assert_array_equal(codes(image), np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(codes(image, GRAY), np.asarray(image.convert("L")))


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_changes_nothing_and_warns_of_nothing(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    transparent: Any = {"P": bytes(range(256)), "L": 7, "RGB": (1, 2, 3)}[mode]
    file = io.BytesIO()
    image.save(file, "PNG", transparency=transparent)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, gray = codes(file.getvalue()), codes(file.getvalue(), GRAY)

    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(gray, np.asarray(image.convert("L")))


@settings(deadline=None)
@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=40))
def test_sixteen_bit_gray_keeps_its_high_byte(values: list[int]) -> None:
    wide = np.array([values], np.uint16)
    expected = (wide >> 8).astype(np.uint8)

    found = codes(encoded(wide))

    np.testing.assert_array_equal(found, np.repeat(expected[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(codes(encoded(wide, "TIFF"), GRAY), expected)


@pytest.mark.parametrize("image", [np.zeros((2, 2), np.float32), np.full((2, 2), -1, np.int32)])
def test_other_depths_are_refused(image: Any) -> None:
    with pytest.raises(ImageError, match="expected 8 or 16 bits"):
        codes(encoded(image, "TIFF"))


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied_where_wanted(orientation: int) -> None:
    image = Image.fromarray(photo())
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    with Image.open(io.BytesIO(file.getvalue())) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))

    np.testing.assert_array_equal(codes(file.getvalue()), upright)
    as_stored = Preprocess(resize=0, crop=0, exif=False)
    np.testing.assert_array_equal(codes(file.getvalue(), as_stored), photo())


def test_damaged_exif_is_no_reason_to_refuse() -> None:
    data = encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\1")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own words about it

        assert codes(data).shape == (20, 30, 3)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.fromarray(photo(seed)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)

    np.testing.assert_array_equal(codes(file.getvalue()), photo(0))


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (photo(), (20, 30, 3)),
        (photo()[::-1, ::2], (20, 15, 3)),
        (photo()[:, :, :1], (20, 30, 3)),
        (photo()[:, :, 0], (20, 30, 3)),
    ],
    ids=["rgb", "view", "one channel", "two axes"],
)
def test_arrays(array: Any, shape: tuple[int, ...]) -> None:
    found = codes(array)

    assert found.shape == shape
    plane = array if array.ndim == 2 else array[:, :, 0]
    np.testing.assert_array_equal(found[:, :, 0], plane)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((4, 4, 4), np.uint8), "expected shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "expected shape"),
        (np.zeros((0, 4, 3), np.uint8), "expected shape"),
        (np.zeros(4, np.uint8), "expected shape"),
    ],
)
def test_other_arrays_are_refused(array: Any, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        codes(array)


def test_the_image_of_the_caller_is_left_alone() -> None:
    image = Image.fromarray(photo()).convert("P")
    image.info["transparency"] = 3

    codes(image)

    assert image.mode == "P"
    assert image.info == {"transparency": 3}


def test_a_large_image_is_refused_before_it_is_decoded_and_without_a_warning() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    header = encoded(np.zeros((1, 1), np.uint8), "PPM").replace(b"1 1", b"%d %d" % (side, side))

    with pytest.raises(ImageError, match=f"{side}x{side} px"):
        codes(header)


def test_damaged_files_give_one_line() -> None:
    whole = encoded(photo(), "JPEG")
    # The last two bytes only say that it ends.
    for length in range(1, len(whole) - 3, 7):
        with pytest.raises(ImageError) as caught:
            codes(whole[:length])

        assert "\n" not in str(caught.value)
        assert "BytesIO" not in str(caught.value)


@settings(deadline=None)
@given(st.data())
def test_any_bytes_after_a_magic_number_give_an_image_or_an_image_error(data: Any) -> None:
    whole = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings(), contextlib.suppress(ImageError):
        warnings.simplefilter("ignore")
        assert codes(bytes(whole)).ndim == 3


WHOLE = [
    encoded(photo(size=(6, 7)), form)
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
]


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 100])
def test_files_that_are_no_images_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.jpg"
    file.write_bytes(content)

    with pytest.raises(ImageError, match=r"x\.jpg: (not an image|the file is empty)"):
        codes(file)


def test_what_is_not_a_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    here = Path.cwd()
    os.chdir(tmp_path)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket")
    finally:
        os.chdir(here)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    reasons = {
        "pipe": "is a pipe", "to-pipe": "is a pipe", "socket": "is a pipe", "loop": "symbolic",
        "folder": "is a folder", "huge": "1048576 MiB", "absent": "no such file",
        "a" * 300: "too long", "nul\0": "null",
    }  # fmt: skip

    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            codes(f"{tmp_path}/{name}")
    for device in ("/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "/proc/kmsg"):
        if Path(device).exists():
            with pytest.raises(ImageError):
                codes(device)


def test_unreadable_files_say_so(tmp_path: Path) -> None:
    file = tmp_path / "secret.png"
    file.write_bytes(encoded(photo()))
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("root reads everything")

    with pytest.raises(ImageError, match="permission denied"):
        codes(file)


def test_threads_decode_at_the_same_time() -> None:
    data = [encoded(photo(seed), "PNG") for seed in range(16)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(codes, data))

    for seed, image in enumerate(found):
        np.testing.assert_array_equal(image, photo(seed))


def test_name_of() -> None:
    assert name_of(Path("a/b.png")) == "a/b.png"
    assert name_of(b"...") == name_of(photo()) == "image"


# The manifest leaves these open: an image with wrong colours, a first frame, names that hide.
READ_ALTHOUGH_ODD = {"bitflipped.jpg", "animated.gif", "noextension", ".hidden.jpg"}


def test_nasty_files_do_what_they_should(edgecls_data: Path) -> None:
    folder = edgecls_data / "nasty"
    for name, entry in json.loads((folder / "manifest.json").read_text()).items():
        if entry["expect"].startswith("ok") or name in READ_ALTHOUGH_ODD:
            assert to_pixels(folder / name, PRESETS["imagenet"]).shape == (224, 224, 3), name
        else:
            with pytest.raises(ImageError) as caught:
                to_pixels(folder / name, PRESETS["imagenet"])

            assert re.fullmatch(r"[^\n]+", str(caught.value)), name


def test_nasty_files_stay_within_memory(edgecls_data: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from edgecls.core.errors import ImageError\n"
        "from edgecls.core.preprocess import PRESETS\n"
        "from edgecls.runtimes.preprocess import to_pixels\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for file in Path(sys.argv[1]).iterdir():\n"
        "    try: to_pixels(file, PRESETS['imagenet'])\n"
        "    except ImageError: pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, edgecls_data / "nasty"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert int(done.stdout) < 40, "MiB above the interpreter with Pillow"
