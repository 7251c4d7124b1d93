"""What ``predict`` takes by stage, beside the bare interpreter's ``invoke`` in the same run.

    EDGECLS_DATA=... python benchmarks/latency.py [--rounds 60]

EfficientNet-Lite0, int8 and float32 on LiteRT, one thread. Each round takes one photo through
``predict`` and through the least code that gives the same answer: decode, resize, ``invoke``. The
two take turns and go first by turns; medians and the ratio of medians are printed. Then the photos
go through ``predict_stream``: the time of the slower of its two threads' work, summed over the
photos, is given as a share of the time that the stream took. On two free cores 1 is the most.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from common import data_folder, edgecls, machine, python, table, work_folder
from PIL import Image

from edgecls import Bundle, Predictor, load
from edgecls.data.images import list_images
from edgecls.runtimes.prediction import Prediction

STREAMS = 5
IMPORT = "import time; s = time.perf_counter(); import edgecls; print(time.perf_counter() - s)"
MEMORY = """
import sys
kind, path, photo = sys.argv[1:]
if kind == "edgecls":
    import edgecls
    edgecls.load(path, threads=1).predict(photo)
else:
    import io, numpy, PIL.Image
    from ai_edge_litert.interpreter import Interpreter
    net = Interpreter(model_path=path, num_threads=1)
    net.allocate_tensors()
    source = net.get_input_details()[0]
    PIL.Image.open(photo).convert("RGB").resize((224, 224))
    net.set_tensor(source["index"], numpy.zeros(source["shape"], source["dtype"]))
    net.invoke()
# Not getrusage: its peak outlives exec, so that a child would report its parent's.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


def main() -> None:
    """Export both precisions and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    data = data_folder()
    photos = [image.path for image in list_images(data / "imagenet500")][:rounds]
    weights = data / "weights" / "efficientnet-lite0-57934424.pth"
    rows = []
    with work_folder() as folder:
        for precision in ("int8", "fp32"):
            out = Path(folder) / precision
            edgecls(
                "export", "timm:tf_efficientnet_lite0", "--weights", weights, "--target",
                "raspberry-pi", "--precision", precision, "--calib", data / "imagenet500",
                "--calib-images", 30, "-o", out,
            )  # fmt: skip
            rows.append([precision, *measure(out / "raspberry-pi", photos)])
            rows[-1] += memory(out / "raspberry-pi", photos[0])
    print(f"{machine()}, one thread, {rounds} photos, medians\n")
    print(table(("", "decode", "preprocess", "inference", "postprocess", "predict", "bare",
                 "predict / bare", "invoke", "slower stage / stream", "memory over bare"),
                rows))  # fmt: skip
    times = [float(python(IMPORT)) for _ in range(5)]
    print(f"\nimport edgecls: {median(times) * 1e3:.0f} ms")


def measure(bundle: Path, photos: list[Path]) -> list[str]:
    """Return the table's cells for one bundle."""
    predictor = load(bundle, threads=1)
    manifest = Bundle(bundle).manifest
    artefact = manifest.artefacts[0]
    net = Interpreter(model_path=str(bundle / artefact.path), num_threads=1)
    net.allocate_tensors()
    source, result = net.get_input_details()[0], net.get_output_details()[0]
    scale, zero_point = source["quantization"]
    mean, std = manifest.preprocess.mean[0], manifest.preprocess.std[0]
    stages: dict[str, list[float]] = {}
    ours: list[float] = []
    bare: list[float] = []
    invoke: list[float] = []

    def run_bare(photo: Path) -> int:
        start = time.perf_counter()
        image = Image.open(io.BytesIO(photo.read_bytes())).convert("RGB")
        width, height = image.size
        ratio = 256 / min(width, height)
        image = image.resize((int(width * ratio), int(height * ratio)), Image.Resampling.BICUBIC)
        left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)))
        tensor = (pixels.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
        if scale:
            tensor = np.clip(np.rint(tensor / scale) + zero_point, -128, 127).astype(np.int8)
        net.set_tensor(source["index"], tensor[None])
        before = time.perf_counter()
        net.invoke()
        invoke.append((time.perf_counter() - before) * 1e3)
        answer = int(net.get_tensor(result["index"])[0].argmax())
        bare.append((time.perf_counter() - start) * 1e3)
        return answer

    def run_ours(photo: Path) -> int:
        start = time.perf_counter()
        prediction = predictor.predict(photo)
        ours.append((time.perf_counter() - start) * 1e3)
        for stage, value in prediction.speed_ms.items():
            stages.setdefault(stage, []).append(value)
        return prediction.top1.index

    agreed = 0
    for index, photo in enumerate(photos):
        runs = [run_ours, run_bare] if index % 2 else [run_bare, run_ours]
        agreed += len({run(photo) for run in runs}) == 1
    if agreed < len(photos) - 1:  # one rounding of the resize may differ
        sys.exit(f"the two answered differently on {len(photos) - agreed} photos")
    names = ("decode", "preprocess", "inference", "postprocess")
    return [
        *(f"{median(stages[name]):.2f} ms" for name in names),
        f"{median(ours):.2f} ms",
        f"{median(bare):.2f} ms",
        f"{median(ours) / median(bare):.2f}",
        f"{median(invoke):.2f} ms",
        f"{median(stream(predictor, photos) for _ in range(STREAMS)):.2f}",
    ]


def stream(predictor: Predictor, photos: list[Path]) -> float:
    """Return the slower thread's share of a stream's time."""
    start = time.perf_counter()
    answers = list(predictor.predict_stream(photos))
    taken_ms = (time.perf_counter() - start) * 1e3
    ahead = behind = 0.0
    for answer in answers:
        if not isinstance(answer, Prediction):
            raise answer
        ahead += answer.speed_ms["decode"] + answer.speed_ms["preprocess"]
        behind += answer.speed_ms["inference"] + answer.speed_ms["postprocess"]
    return max(ahead, behind) / taken_ms


def memory(bundle: Path, photo: Path) -> list[str]:
    """Return by how much the peak memory of one prediction exceeds the bare interpreter's."""
    model = bundle / Bundle(bundle).manifest.artefacts[0].path
    peaks = {
        kind: int(python(MEMORY, kind, path, photo))
        for kind, path in (("edgecls", bundle), ("bare", model))
    }
    return [f"{(peaks['edgecls'] - peaks['bare']) / 1e6:+.1f} MB"]


if __name__ == "__main__":
    main()
