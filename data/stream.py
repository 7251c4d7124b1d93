"""Decodes images in threads, in order, with bounded memory."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..core.errors import ImageError
from ..core.files import sha256_bytes
from ..core.preprocess import Preprocess
from ..core.values import Pixels
from ..runtimes.images import read_regular_file
from ..runtimes.preprocess import to_pixels
from .images import ImageFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images that follow each other.

    Attributes:
        images: Those that could be read, in order.
        pixels: Shape (H, W, C) uint8 for each of ``images``; sizes differ only where the
            preprocessing neither resizes nor crops.
        hashes: The SHA-256 of the file of each of ``images``, of the bytes that were decoded.
        errors: The images that could not be read, in order, each with the reason.
    """

    images: tuple[ImageFile, ...]
    pixels: tuple[Pixels, ...]
    hashes: tuple[str, ...]
    errors: tuple[tuple[ImageFile, ImageError], ...] = ()

    def stack(self) -> Pixels:
        """Return the pixels as one array (N, H, W, C).

        Raises:
            ImageError: An image has another size than the first; the message names it.
        """
        for image, pixels in zip(self.images, self.pixels, strict=True):
            if pixels.shape != self.pixels[0].shape:
                raise ImageError(
                    str(image.path),
                    f"{pixels.shape[1]}x{pixels.shape[0]} px, the images before it "
                    f"{self.pixels[0].shape[1]}x{self.pixels[0].shape[0]} px; "
                    "give a preprocessing that resizes or crops",
                )
        return np.stack(self.pixels)


def stream_pixels(
    images: Sequence[ImageFile],
    preprocess: Preprocess,
    *,
    size: tuple[int, int] | None = None,
    workers: int = 2,
    batch: int = 1,
) -> Generator[Batch, None, None]:
    """Yield the images' pixels in the order of ``images``, ``batch`` at a time.

    An image that cannot be read does not stop the others: it stands in its batch's ``errors``,
    and its batch has that many fewer pixels (perhaps none). At most ``batch + 2 * workers``
    decoded images are held. Closing the generator stops the threads.

    Args:
        images: What to read.
        preprocess: How.
        size: (height, width) of the model's input, where it is fixed.
        workers: Threads; decoding leaves Python's lock.
        batch: Images of one batch; the last may have fewer.
    """
    if workers < 1 or batch < 1:
        raise ValueError(f"workers and batch must be positive, found {workers} and {batch}")

    def read(image: ImageFile) -> tuple[Pixels, str] | ImageError:
        name = str(image.path)
        try:
            data = read_regular_file(name)
            return to_pixels(data, preprocess, size=size, name=name), sha256_bytes(data)
        except ImageError as error:
            return error

    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="edgecls-decode")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting: deque[Future[tuple[Pixels, str] | ImageError]] = deque()
        ahead = iter(images)
        for image in ahead:
            waiting.append(pool.submit(read, image))
            if len(waiting) == 2 * workers:
                break
        for start in range(0, len(images), batch):
            good: list[tuple[ImageFile, Pixels, str]] = []
            bad: list[tuple[ImageFile, ImageError]] = []
            for image in images[start : start + batch]:
                result = waiting.popleft().result()
                following = next(ahead, None)
                if following is not None:
                    waiting.append(pool.submit(read, following))
                if isinstance(result, ImageError):
                    bad.append((image, result))
                else:
                    good.append((image, *result))
            yield Batch(
                images=tuple(image for image, _, _ in good),
                pixels=tuple(pixels for _, pixels, _ in good),
                errors=tuple(bad),
                hashes=tuple(digest for _, _, digest in good),
            )
