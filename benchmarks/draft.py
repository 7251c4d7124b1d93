"""What decoding JPEG files at a part of their size gains, and what it changes.

    EDGECLS_DATA=... python benchmarks/draft.py [--photos 500]

EfficientNet-Lite0 on LiteRT, float32 and int8. The photos have a shorter side of 256 px, at which
nothing is reduced for this model. So each is enlarged (Lanczos) to what a camera gives, gets a
sensor's noise, and is written as a JPEG of quality 90, 4:2:0. For each ``draft`` the table has the
time from the file's bytes to the model's pixels, beside that of decoding all; the pixels' mean
difference; and the answers. A second table has the peak memory for the largest file that is taken.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from common import data_folder, edgecls, machine, python, table, work_folder
from PIL import Image

from edgecls import Predictor, load
from edgecls.core.preprocess import Preprocess
from edgecls.data.images import list_images
from edgecls.data.truth import read_truth
from edgecls.runtimes.images import MAX_PIXELS
from edgecls.runtimes.preprocess import to_pixels

DRAFTS = (0, 1, 2, 3)
SIDES = (1024, 3000)  # 3000 px and 4:3 are 12 MP; at 1024 draft 1 and 2 leave the least
NOISE = 4.0  # codes, of each channel
SMALL = Preprocess(resize=112, crop=96)

PEAK = """
from edgecls.core.preprocess import Preprocess
from edgecls.runtimes.preprocess import to_pixels
def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
path, draft = sys.argv[1:]
import PIL.JpegImagePlugin
before = peak()
to_pixels(path, Preprocess(draft=int(draft)))
print(peak() - before)
"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--side", type=int, action="append", choices=SIDES)
    options = parser.parse_args()
    data = data_folder()
    images = list_images(data / "imagenet500")[: options.photos]
    photos = [image.path for image in images]
    known = read_truth(data / "imagenet500" / "labels.json")
    right = np.array([known[image.name] for image in images])
    print(f"{machine()}, {len(photos)} photos, medians of the time per photo\n")
    print(as_they_are(photos), flush=True)
    weights = data / "weights" / "efficientnet-lite0-57934424.pth"
    with work_folder() as name:
        predictors = {}
        for precision in ("fp32", "int8"):
            out = Path(name) / precision
            edgecls(
                "export", "timm:tf_efficientnet_lite0", "--weights", weights, "--target",
                "raspberry-pi", "--precision", precision, "--calib", data / "imagenet500",
                "--calib-images", 100, "-o", out,
            )  # fmt: skip
            predictors[precision] = load(out / "raspberry-pi")
        for side in options.side or SIDES:
            print(f"\n### shorter side {side} px\n")
            print(measure(photos, right, side, predictors), flush=True)
        print(f"\n### {MAX_PIXELS / 1e6:.0f} megapixels\n")
        print(largest(Path(name), photos[0]))


def as_they_are(photos: list[Path]) -> str:
    """Time the photos themselves, for a model that takes 96 px: at 256 px nothing is reduced."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for photo in photos:
        file = photo.read_bytes()
        for draft in shuffled(times):
            preprocess = msgspec.structs.replace(SMALL, draft=draft)
            times[draft].append(seconds(file, preprocess)[0])
    full, reduced = median(times[0]), median(times[1])
    return (
        f"photos as they are, resize {SMALL.resize}: {full * 1e3:.2f} ms, draft 1 "
        f"{reduced * 1e3:.2f} ms, {reduced / full:.2f} of it"
    )


def measure(
    photos: list[Path], right: np.ndarray, side: int, predictors: dict[str, Predictor]
) -> str:
    """Return the table for photos of a shorter side, in px."""
    preprocess = next(iter(predictors.values())).bundle.manifest.preprocess
    times: dict[int, list[float]] = {draft: [] for draft in DRAFTS}
    moved: dict[int, list[float]] = {draft: [] for draft in DRAFTS}
    answers: dict[tuple[str, int], list[int]] = {}
    for index, photo in enumerate(photos):
        file = enlarged(photo, side, index)
        pixels = {}
        for draft in shuffled(times):
            taken, pixels[draft] = seconds(file, msgspec.structs.replace(preprocess, draft=draft))
            times[draft].append(taken)
        for draft in DRAFTS:
            moved[draft].append(float(np.abs(pixels[draft].astype(int) - pixels[0]).mean()))
            for precision, predictor in predictors.items():
                answer = int(predictor.logits(pixels[draft][None])[0].argmax())
                answers.setdefault((precision, draft), []).append(answer)
    rows = []
    for draft in DRAFTS:
        row = [str(draft), f"{median(times[draft]) * 1e3:.1f} ms",
               f"{median(times[draft]) / median(times[0]):.2f}",
               f"{np.mean(moved[draft]):.2f}"]  # fmt: skip
        for precision in predictors:
            found, all_of_it = np.array(answers[precision, draft]), answers[precision, 0]
            row += [f"{100 * np.mean(found == right):.1f} %",
                    f"{100 * np.mean(found == all_of_it):.1f} %"]  # fmt: skip
        rows.append(row)
    answered = [f"{what} {p}" for p in predictors for what in ("top-1", "agreement")]
    return table(("draft", "decode and resize", "/ draft 0", "codes", *answered), rows)


def enlarged(photo: Path, side: int, seed: int) -> bytes:
    """Return a photo as a JPEG file of that shorter side, in px, with noise in each pixel."""
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    ratio = side / min(image.size)
    image = image.resize(
        (round(image.width * ratio), round(image.height * ratio)), Image.Resampling.LANCZOS
    )
    noise = np.random.default_rng(seed).normal(0, NOISE, (512, 512, 3)).astype(np.float32)
    repeats = (-(-image.height // 512), -(-image.width // 512), 1)
    noisy = np.asarray(image) + np.tile(noise, repeats)[: image.height, : image.width]
    out = io.BytesIO()
    Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(
        out, "JPEG", quality=90, subsampling=2
    )
    return out.getvalue()


def largest(folder: Path, photo: Path) -> str:
    """Return the table of the memory that the largest JPEG takes while it becomes pixels."""
    side = int(MAX_PIXELS**0.5)
    with Image.open(photo) as opened:
        image = opened.convert("RGB").resize((side, side))
    rows = []
    for kind, progressive in (("baseline", False), ("progressive", True)):
        path = folder / f"{kind}.jpg"
        image.save(path, "JPEG", quality=90, progressive=progressive)
        peaks = [int(python(PEAK, path, draft)) for draft in (0, 2)]
        rows.append([kind, *(f"{peak / 1e6:.0f} MB" for peak in peaks)])
    return table(("JPEG", "draft 0", "draft 2"), rows)


def shuffled(drafts: dict[int, list[float]]) -> list[int]:
    """Return the drafts in random order: each goes first as often as the others."""
    return random.sample(list(drafts), len(drafts))


def seconds(file: bytes, preprocess: Preprocess) -> tuple[float, np.ndarray]:
    """Return how long a file takes to become pixels, and the pixels."""
    start = time.perf_counter()
    pixels = to_pixels(file, preprocess)
    return time.perf_counter() - start, pixels


if __name__ == "__main__":
    main()
