"""Images per second of ``drift``, beside bare inference of the same images on the same backends.

    EDGECLS_DATA=... python benchmarks/drift_throughput.py [--images 2000] [--rounds 3]

EfficientNet-Lite0: int8 on LiteRT against its float ONNX graph on ONNX Runtime. Bare inference is
the least code that gives both models' logits of every image: read, decode, resize, crop, run both;
as many processes, each with its part of the images and one thread for each model. A rate is that
of the images between a short run and a long one, so that neither side's start counts; the start of
``drift`` is printed apart. The time of the CPU beside it tells how much of a difference is the
machine's load. The runs take turns; medians.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from common import data_folder, edgecls, machine, table, work_folder
from PIL import Image

from edgecls import Bundle, load
from edgecls.core.progress import Quiet
from edgecls.core.values import Precision
from edgecls.data.images import list_images
from edgecls.drift import Budgets
from edgecls.workflows.answering import DataOptions
from edgecls.workflows.drift import DriftOptions, drift
from edgecls.workflows.scale import Scale
from edgecls.workflows.sources import from_predictor

SHORT = 200
WORKERS = (1, 2)


def main() -> None:
    """Export both bundles, run everything in turns, print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="Photos, repeated as needed.")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.images <= SHORT:
        sys.exit(f"--images must be more than {SHORT}")
    data = data_folder()
    photos = [image.path for image in list_images(data / "imagenet500")]
    weights = data / "weights" / "efficientnet-lite0-57934424.pth"
    with work_folder() as folder:
        for target, precision in (("raspberry-pi", "int8"), ("desktop-gpu", "fp32")):
            edgecls(
                "export", "timm:tf_efficientnet_lite0", "--weights", weights, "--target", target,
                "--precision", precision, "--calib", data / "imagenet500", "--calib-images", 30,
                "-o", folder,
            )  # fmt: skip
        bundles = (Path(folder) / "raspberry-pi", Path(folder) / "desktop-gpu")
        sets = [linked(photos, Path(folder) / str(n), n) for n in (SHORT, arguments.images)]
        took: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
        for _ in range(arguments.rounds):
            for workers in WORKERS:
                for number, images in enumerate(sets):
                    for name, run in (("bare", bare), ("drift", ours)):
                        key = (name, workers, number)
                        took.setdefault(key, []).append(timed(run, bundles, images, workers))
    rows = []
    between = arguments.images - SHORT
    for workers in WORKERS:
        short, each = {}, {}
        for name in ("bare", "drift"):
            few, many = (np.median(took[name, workers, number], 0) for number in (0, 1))
            short[name], each[name] = few, (many - few) / between
        start = short["drift"][0] - SHORT * each["drift"][0]
        ratios = each["bare"] / each["drift"]
        rows.append([
            str(workers), f"{1 / each['bare'][0]:.1f}", f"{1 / each['drift'][0]:.1f}",
            f"{ratios[0]:.2f}", f"{1e3 * each['bare'][1]:.1f} ms",
            f"{1e3 * each['drift'][1]:.1f} ms",
            f"{ratios[1]:.2f}", f"{start:.1f} s",
        ])  # fmt: skip
    print(f"{machine()}, {arguments.images} images, {arguments.rounds} rounds, medians\n")
    header = ("workers", "bare images/s", "drift images/s", "drift / bare", "bare CPU", "drift CPU",
              "bare / drift CPU", "start")  # fmt: skip
    print(table(header, rows))


def timed(
    run: Callable[[tuple[Path, Path], Path, int], None], bundles: tuple[Path, Path], images: Path,
    workers: int,
) -> tuple[float, float]:  # fmt: skip
    """Return the seconds that a run takes, and those of the CPU, its processes' too."""
    start, before = time.perf_counter(), _cpu()
    run(bundles, images, workers)
    return time.perf_counter() - start, _cpu() - before


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def linked(photos: Sequence[Path], folder: Path, count: int) -> Path:
    """Return a folder with links to so many photos, some of them several times."""
    folder.mkdir()
    for index in range(count):
        photo = photos[index % len(photos)]
        (folder / f"{index:06d}{photo.suffix}").symlink_to(photo)
    return folder


def ours(bundles: tuple[Path, Path], images: Path, workers: int) -> None:
    """Run ``drift``."""
    options = DriftOptions(
        reference=str(bundles[1]), data=DataOptions(data=images), scale=Scale(workers=workers),
        budgets=Budgets(min_agreement=90),
    )  # fmt: skip
    drift(from_predictor(load(bundles[0], threads=1)), options, Quiet())


def bare(bundles: tuple[Path, Path], images: Path, workers: int) -> None:
    """Run the models alone, in as many processes."""
    files = [str(image.path) for image in list_images(images)]
    models = [_file(bundles[0], "tflite", "int8"), _file(bundles[1], "onnx", "fp32")]
    context = multiprocessing.get_context("spawn")
    parts = [(models, files[at::workers]) for at in range(workers)]
    processes = [context.Process(target=run_bare, args=part) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            sys.exit("bare inference failed")


def _file(path: Path, kind: Literal["tflite", "onnx"], precision: Precision) -> str:
    artefact = Bundle(path).find(kind, precision)
    assert artefact is not None
    return str(path / artefact.path)


def run_bare(models: Sequence[str], files: Sequence[str]) -> None:
    """Answer to every image with both models."""
    net = Interpreter(model_path=models[0], num_threads=1)
    net.allocate_tensors()
    source, result = net.get_input_details()[0], net.get_output_details()[0]
    scale, zero_point = source["quantization"]
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(models[1], settings)
    (graph_input,) = session.get_inputs()
    codes = (np.arange(256, dtype=np.float32) - 127) / 128
    quantized = np.clip(np.rint(codes / scale) + zero_point, -128, 127).astype(np.int8)
    for file in files:
        image = Image.open(io.BytesIO(Path(file).read_bytes())).convert("RGB")
        ratio = 256 / min(image.size)
        image = image.resize(
            (int(image.width * ratio), int(image.height * ratio)), Image.Resampling.BICUBIC
        )
        left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)))
        net.set_tensor(source["index"], quantized[pixels][None])
        net.invoke()
        net.get_tensor(result["index"]).argmax()
        tensor = np.ascontiguousarray(codes[pixels].transpose(2, 0, 1))[None]
        session.run(None, {graph_input.name: tensor})[0].argmax()


if __name__ == "__main__":
    main()
