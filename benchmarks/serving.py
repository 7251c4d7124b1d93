"""Measures ``edgecls serve`` beside the bare interpreter: the same file, the same photos.

    EDGECLS_DATA=... python benchmarks/serving.py [BUNDLE] [--requests 10000]

Without BUNDLE EfficientNet-Lite0 is exported in int8 for raspberry-pi. The bare interpreter runs in
as many processes as the server has, one thread each, twice: on pixels that are ready, and from the
file's bytes (decoded and cropped by the same code). The server is asked for the same two: with
files (/v1/predict) and with tensors (the Open Inference Protocol). The client takes part of the
same cores, so that CPU time for an image, which it does not touch, is given beside the rates.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, edgecls, machine, split, table, work_folder
from serving_client import Load, load, post, tensor_request

from edgecls.bundle import Bundle
from edgecls.runtimes.preprocess import to_pixels

GOAL = 0.9
PHOTOS = 100


def bare(bundle: Path, files: Sequence[bytes]) -> tuple[Callable[[Any], None], list[Any]]:
    """Return what runs the bundle's primary file on one image, and the inputs that are ready."""
    opened = Bundle(bundle)
    preprocess, artefact = opened.manifest.preprocess, opened.manifest.artefacts[0]
    data = opened.read(artefact.path)
    if artefact.format == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        net = Interpreter(model_content=data, num_threads=1)
        net.allocate_tensors()
        source, result = net.get_input_details()[0], net.get_output_details()[0]
        scale, zero = source["quantization"]
        table = preprocess.table()
        if source["dtype"] == np.int8:
            table = np.clip(np.rint(table / scale) + zero, -128, 127)
        codes = table.astype(source["dtype"])
        image = np.empty(source["shape"], source["dtype"])

        def run(pixels: Any) -> None:
            for at, values in enumerate(codes):
                image[0, ..., at] = values[pixels[..., at]]
            net.set_tensor(source["index"], image)
            net.invoke()
            net.get_tensor(result["index"])
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def run(pixels: Any) -> None:
            session.run(None, {name: preprocess.normalize(pixels[None])})

    return run, [to_pixels(file, preprocess) for file in files]


def _bare_process(
    bundle: Path, files: Sequence[bytes], decode: bool, images: int, gate: Any, out: Any
) -> None:
    run, pixels = bare(bundle, files)
    preprocess = Bundle(bundle).manifest.preprocess
    for _ in range(5):
        run(pixels[0])
    gate.wait()
    cpu = time.process_time()
    for at in range(images):
        run(to_pixels(files[at % len(files)], preprocess) if decode else pixels[at % len(files)])
    gate.wait()
    out.put(time.process_time() - cpu)


def bare_rate(
    bundle: Path, files: Sequence[bytes], *, workers: int, decode: bool, images: int
) -> tuple[float, float]:
    """Return images in a second of all processes together, and CPU seconds of an image."""
    context = multiprocessing.get_context("spawn")
    gate, out = context.Barrier(workers + 1), context.Queue()
    each = images // workers
    arguments = (bundle, files, decode, each, gate, out)
    processes = [context.Process(target=_bare_process, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    gate.wait(120)
    start = time.perf_counter()
    gate.wait(3600)
    seconds = time.perf_counter() - start
    cpu = sum(out.get() for _ in processes)
    for process in processes:
        process.join()
    return each * workers / seconds, cpu / (each * workers)


class Server:
    """A server that runs: its port, and what its processes cost."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        self._processes = [Path(f"/proc/{child}") for child in children.split()]

    def cpu_s(self) -> float:
        """Return the CPU seconds of all that answers."""
        ticks = 0
        for process in self._processes:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Return the resident memory of all that answers."""
        pages = sum(int((each / "statm").read_text().split()[1]) for each in self._processes)
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def serving(bundle: Path, workers: int, queue: int) -> Iterator[Server]:
    """Start a server on a free port."""
    command = [sys.executable, "-m", "edgecls", "serve", bundle, "--port", "0", "--threads", "1",
               "--workers", str(workers), "--queue", str(queue)]  # fmt: skip
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    try:
        if " answers on " not in said:
            sys.exit("the server did not start")
        yield Server(process, int(said.split(" answers on ")[1].split()[0].rpartition(":")[2]))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def asked(
    server: Server, requests: Sequence[bytes], connections: int, total: int
) -> tuple[Load, float, list[float]]:
    """Return what came of a load, the server's CPU seconds for an answer, its memory on the way."""
    load(server.port, requests, connections=connections, total=4 * connections)
    memory = [server.rss_mb()]

    def watch(done: int) -> None:
        if done % max(total // 10 // 100 * 100, 100) == 0:
            memory.append(server.rss_mb())

    before = server.cpu_s()
    found = load(server.port, requests, connections=connections, total=total, watch=watch)
    return found, (server.cpu_s() - before) / total, memory


def tensors(port: int, bundle: Path, files: Sequence[bytes]) -> list[bytes]:
    """Return requests of the Open Inference Protocol for the photos."""
    preprocess = Bundle(bundle).manifest.preprocess
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/model") as answer:
        name = json.load(answer)["name"]
    made = (preprocess.normalize(to_pixels(file, preprocess)[None]) for file in files)
    return [
        tensor_request(f"/v2/models/{name}/infer", "input", each.tobytes(), each.shape)
        for each in made
    ]


def measure(bundle: Path, files: Sequence[bytes], asked_for: argparse.Namespace) -> int:
    """Measure all four, print them, and return how many requests failed."""
    rows, failed, ratios = [], 0, {}
    workers, total = asked_for.workers, asked_for.requests
    for decode, what in ((False, "pixels ready"), (True, "from the file")):
        rate, cpu = bare_rate(bundle, files, workers=workers, decode=decode, images=total // 2)
        rows.append([f"bare interpreter, {what}", f"{rate:.0f}", "", "", f"{1e3 * cpu:.2f}", ""])
        with serving(bundle, workers, 4 * asked_for.connections) as server:
            requests = (
                [post("/v1/predict", file, content_type="image/jpeg") for file in files]
                if decode
                else tensors(server.port, bundle, files[:20])
            )
            found, each_s, memory = asked(server, requests, asked_for.connections, total)
        failed += total - found.statuses[200]
        ratios[what] = (found.rate / rate, cpu / each_s)
        rows.append([
            "server, " + ("files" if decode else "tensors"), f"{found.rate:.0f}",
            f"{found.quantile_ms(0.5):.1f}", f"{found.quantile_ms(0.99):.1f}",
            f"{1e3 * each_s:.2f}", f"{1e3 * found.client_cpu_s / total:.2f}",
        ])  # fmt: skip
        shown = ", ".join(f"{each:.0f}" for each in memory)
        print(f"{rows[-1][0]}: statuses {dict(found.statuses)}, memory in MB on the way: {shown}")
    header = ("", "images/s", "p50 ms", "p99 ms", "CPU ms/image", "client CPU ms")
    print(f"\n{machine()}; {workers} processes, {asked_for.connections} connections, "
          f"{total} requests\n")  # fmt: skip
    print(table(header, rows))
    for what, (rate, cpu) in ratios.items():
        print(
            f"\n{what}: {rate:.2f} of the bare interpreter's rate with the client on the same "
            f"cores, {cpu:.2f} by CPU time for an image (goal {GOAL})"
        )
    return failed


def main() -> int:
    """Export where no bundle is given, measure, print; exit code 1 where a request failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    asked_for = parser.parse_args()
    data = data_folder()
    photos = sorted((data / "imagenet500").rglob("*.jpg"))[::5][:PHOTOS]
    files = [photo.read_bytes() for photo in photos]
    with work_folder() as folder:
        bundle = asked_for.bundle
        if bundle is None:
            calibration, _ = split(data / "imagenet500", Path(folder) / "photos", 100)
            edgecls(
                "export", "timm:tf_efficientnet_lite0", "--weights",
                data / "weights" / "efficientnet-lite0-57934424.pth", "--target", "raspberry-pi",
                "--calib", calibration, "--out", Path(folder) / "bundles",
            )  # fmt: skip
            bundle = Path(folder) / "bundles" / "raspberry-pi"
        return 1 if measure(bundle, files, asked_for) else 0


if __name__ == "__main__":
    sys.exit(main())
