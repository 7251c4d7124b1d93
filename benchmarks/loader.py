"""Images per second of the loader, beside bare decoding and torchvision's ImageFolder + DataLoader.

    EDGECLS_DATA=... python benchmarks/loader.py [--rounds 5] [--workers 2] [--batch 32]

500 photos of 256 px on the shorter side, resized to 256 and cropped to 224, as float32 batches
(N, 3, 224, 224). All take turns and go first by turns; medians are printed. "bare" is the limit:
the same threads decode, resize and crop with Pillow and throw the pixels away, without batches,
checks or normalisation. CPU time is of all threads and processes: other work on the machine changes
it less than the rate.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import data_folder, machine, table, work_folder
from PIL import Image

from edgecls.core.preprocess import PRESETS
from edgecls.core.torchvision_ops import import_torchvision
from edgecls.data.augment import PRESETS as AUGMENTS
from edgecls.data.cache import DiskCache, MemoryCache, PixelCache
from edgecls.data.dataset import Dataset, open_dataset
from edgecls.data.loader import Loader, process_pool

PREPROCESS = PRESETS["imagenet"]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    dataset = open_dataset(data_folder() / "imagenet500")
    workers, batch = options.workers, options.batch

    with work_folder() as folder, process_pool(workers) as pool:

        def ours(**choices: Any) -> Callable[[int], int]:
            def run(epoch: int) -> int:
                asked: dict[str, Any] = {"workers": workers, "shuffle": False, **choices}
                loader = Loader(dataset, PREPROCESS, batch=batch, epoch=epoch, **asked)
                return sum(len(images) for images, _ in loader)

            return run

        def cached(cache: PixelCache) -> Callable[[int], int]:
            return ours(cache=cache)

        disk = DiskCache(Path(folder) / "cache", 1 << 30)
        runs: dict[str, Callable[[int], int]] = {
            "bare decode, resize, crop": lambda _: bare(dataset, workers),
            "edgecls, threads": ours(),
            "edgecls, processes": ours(workers=pool),
            "edgecls, threads, pixels only": ours(normalize=False),
            "edgecls, augmentation light": ours(augment=AUGMENTS["light"]),
            "edgecls, augmentation strong": ours(augment=AUGMENTS["strong"]),
            "edgecls, memory cache": cached(MemoryCache(1 << 30)),
            "edgecls, disk cache": cached(disk),
            "torchvision DataLoader": torchvision(dataset, workers, batch),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        cpu: dict[str, list[float]] = {name: [] for name in runs}
        for name, run in runs.items():  # fills the caches, starts the processes, imports
            assert run(0) == len(dataset), name
        for epoch in range(1, options.rounds + 1):
            names = list(runs)
            for name in names[epoch % len(names) :] + names[: epoch % len(names)]:
                start, busy = time.perf_counter(), cpu_seconds()
                runs[name](epoch)
                seconds[name].append(time.perf_counter() - start)
                cpu[name].append(cpu_seconds() - busy)
    limit = median(seconds["bare decode, resize, crop"])
    rows = [
        [
            name,
            f"{len(dataset) / median(found):.0f}",
            f"{len(dataset) / max(found):.0f} .. {len(dataset) / min(found):.0f}",
            f"{limit / median(found):.2f}",
            f"{1000 * median(cpu[name]) / len(dataset):.2f}",
        ]
        for name, found in seconds.items()
    ]
    print(f"{machine()}, {workers} workers, batches of {batch}, {options.rounds} rounds\n")
    print(table(("", "images/s", "range", "of the limit", "CPU ms per image"), rows))


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children so far."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if file.parent.name == str(os.getpid()) or fields[1] == str(os.getpid()):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def bare(dataset: Dataset, workers: int) -> int:
    """Decode, resize and crop each image in threads; return how many."""

    def read(index: int) -> int:
        with Image.open(str(dataset.source(index))) as file:
            image = file.convert("RGB")
        width, height = image.size
        scale = 256 / min(width, height)
        size = (round(width * scale), round(height * scale))
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
        return np.asarray(image.crop((left, top, left + 224, top + 224))).shape[0] // 224

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(read, range(len(dataset))))


def torchvision(dataset: Dataset, workers: int, batch: int) -> Callable[[int], int]:
    """Return a pass of ``ImageFolder`` and ``DataLoader``, whose processes stay between passes."""
    import_torchvision()
    from torchvision import datasets, transforms

    steps = [
        transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(PREPROCESS.mean, PREPROCESS.std),
    ]
    images = datasets.ImageFolder(str(dataset.folder), transforms.Compose(steps))
    loader: Any = torch.utils.data.DataLoader(
        images, batch, num_workers=workers, persistent_workers=True
    )
    return lambda _: sum(len(found) for found, _ in loader)


if __name__ == "__main__":
    main()
