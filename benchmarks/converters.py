"""What a conversion to TFLite costs and gives, beside litert-torch and onnx2tf in the same run.

    EDGECLS_DATA=... python benchmarks/converters.py --make-envs --python312 python3.12
    EDGECLS_DATA=... python benchmarks/converters.py [--models lite0 resnet18] [--json FILE]

Every converter has an environment of its own (``peers/NAME.txt`` holds its versions, ``--envs``
says where) and converts the same torch program in a process of its own; onnx2tf takes it as the
ONNX file that torch's exporter makes, whose time and memory count. EfficientNet-Lite0 has real
weights: 100 photos calibrate, the other 400 judge. The others are seeded and random, batch norm's
statistics too, and 16 photos calibrate them. All files then run in one LiteRT, on one thread, in
blocks that take turns; the first file runs twice, as a control of the noise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from common import data_folder, machine, split, table, work_folder
from converters_environments import PEERS, Environment
from converters_report import Row, ratios, report
from peers.job import first_line

from edgecls.core.values import relative_difference
from edgecls.data.images import list_images
from edgecls.data.labels import read_labels
from edgecls.data.stream import stream_pixels
from edgecls.data.truth import match_truth
from edgecls.models import load_model

PROCESSES: Final = 3
TIMEOUT_S: Final = 900
# Nothing but its own environment for each converter.
ENVIRON: Final = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@dataclass(frozen=True)
class Converter:
    """A converter as the table has it.

    Attributes:
        environment: The name of its environment.
        adapter: Its script in ``peers/``.
        options: What the adapter is told.
        takes_onnx: Whether torch's exporter runs before it.
    """

    environment: str
    adapter: str
    options: dict[str, str] = field(default_factory=dict)
    takes_onnx: bool = False


CONVERTERS: Final = {
    "edgecls": Converter("edgecls", "convert_edgecls.py"),
    "litert-torch": Converter("litert-torch", "convert_litert_torch.py"),
    "onnx2tf": Converter(
        "onnx2tf", "convert_onnx2tf.py", {"backend": "flatbuffer_direct"}, takes_onnx=True
    ),
    "onnx2tf tf_converter": Converter(
        "onnx2tf-tensorflow", "convert_onnx2tf.py", {"backend": "tf_converter"}, takes_onnx=True
    ),
}
# Minutes for each file.
SLOW: Final = "onnx2tf tf_converter"
MODELS: Final = {
    "lite0": "timm:tf_efficientnet_lite0",
    "resnet18": "timm:resnet18",
    "mobilenetv2": "timm:mobilenetv2_100",
    "deit-tiny": "timm:deit_tiny_patch16_224",
}


@dataclass(frozen=True)
class Case:
    """A model that is ready to be converted.

    Attributes:
        job: What every adapter is told.
        images: Normalised, ``.npy``, (N, H, W, C) float32.
        expected: torch's logits of them.
        truth: The class of each, where the weights are real.
        folder: Where all of it lies.
    """

    job: dict[str, Any]
    images: Path
    expected: np.ndarray
    truth: np.ndarray | None
    folder: Path


def main() -> None:
    """Make environments, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--make-envs", action="store_true", help="make what is missing, and end")
    parser.add_argument("--envs", type=Path, default=PEERS.parent.parent / "build" / "converters")
    parser.add_argument("--python312", default="python3.12", help="onnx2tf needs 3.12 or later")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--converters", nargs="+", choices=CONVERTERS,
                        help=f"default: all; {SLOW} only for lite0")  # fmt: skip
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "int8"),
                        default=["fp32", "int8"])  # fmt: skip
    parser.add_argument("--rounds", type=int, default=40, help="of each latency process")
    parser.add_argument("--keep", type=Path, help="leave all files and logs in a new folder")
    parser.add_argument("--json", type=Path, help="also write all that was measured to a file")
    options = parser.parse_args()
    needed = [CONVERTERS[name].environment for name in options.converters or CONVERTERS]
    environments = {}
    # The first exports the ONNX files too.
    for name in dict.fromkeys(["edgecls", *needed]):
        python = options.python312 if name.startswith("onnx2tf") else sys.executable
        environments[name] = Environment(name, python, options.envs.resolve())
    if options.make_envs:
        for environment in environments.values():
            environment.make()
        print(_environments(environments))
        return
    print(f"{machine()}\n\n{_environments(environments)}\n", flush=True)
    measured: dict[str, Any] = {"machine": machine(), "models": {}}
    measured["environments"] = {name: one.state() for name, one in environments.items()}
    with contextlib.nullcontext(options.keep) if options.keep else work_folder() as folder:
        for model in options.models:
            names = options.converters or [
                name for name in CONVERTERS if model == "lite0" or name != SLOW
            ]
            case = prepare(model, data_folder(), Path(folder) / model)
            for precision in options.precisions:
                rows = compare(case, precision, names, environments, options.rounds)
                print(report(f"{model}, {precision}", rows), flush=True)
                measured["models"][f"{model} {precision}"] = [asdict(row) for row in rows]
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1))


def prepare(name: str, data: Path, folder: Path) -> Case:
    """Save a model as a torch program, its images, and torch's answers."""
    real = name == "lite0"
    weights = data / "weights" / "efficientnet-lite0-57934424.pth" if real else None
    loaded = load_model(MODELS[name], weights=weights)
    module, preprocess, size = loaded.module, loaded.preprocess, loaded.input_size
    assert module is not None
    assert preprocess is not None
    assert size is not None
    if not real:
        _randomize_batch_norm(module)
    calibration, judged = split(data / "imagenet500", folder / "photos", 100)
    files = list_images(judged)[: None if real else 16]

    def pixels(images: Any) -> np.ndarray:
        stream = stream_pixels(images, preprocess, size=(size[1], size[2]))
        return np.concatenate([batch.pixels for batch in stream])

    np.save(folder / "calibration.npy", pixels(list_images(calibration)[: None if real else 16]))
    tensors = preprocess.normalize(pixels(files))
    np.save(folder / "images.npy", np.ascontiguousarray(tensors.transpose(0, 2, 3, 1)))
    torch.set_num_threads(1)  # on a busy machine more threads wait for each other
    with torch.inference_mode():
        expected = [module(torch.from_numpy(part)).numpy()
                    for part in np.array_split(tensors, len(tensors) // 8)]  # fmt: skip
    sample = torch.zeros(1, *size)
    torch.export.save(torch.export.export(module, (sample,)), folder / "model.pt2")
    truth = None
    if real:
        labels = read_labels(data / "imagenet_classes.json")
        found = match_truth(files, num_classes=1000, labels=labels)
        assert found is not None
        truth = np.asarray(found.of(files))
    job = {
        "model": str(folder / "model.pt2"), "onnx": str(folder / "model.onnx"),
        "pixels": str(folder / "calibration.npy"), "size": size,
        "mean": preprocess.mean, "std": preprocess.std,
    }  # fmt: skip
    return Case(job, folder / "images.npy", np.concatenate(expected), truth, folder)


def _randomize_batch_norm(module: torch.nn.Module) -> None:
    """Give statistics that fold into something: timm's start as identities, some at zero."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            torch.nn.init.uniform_(layer.weight, 0.75, 1.25)
            torch.nn.init.normal_(layer.bias, 0.0, 0.1)
            torch.nn.init.normal_(layer.running_mean, 0.0, 0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)


def compare(
    case: Case, precision: str, names: list[str], environments: dict[str, Environment], rounds: int
) -> list[Row]:
    """Convert with every converter, judge every file, and time them all together."""
    found: list[tuple[Row, Path | None]] = []
    for name in names:
        converter = CONVERTERS[name]
        environment = environments[converter.environment]
        for row, path in convert(case, name, converter, environment, precision):
            if path is not None:
                judge(case, row, path)
            found.append((row, path))
    running = [(row, path) for row, path in found if path is not None and not row.error]
    if running:
        first, path = running[0]
        control = Row(f"{first.name}, again")
        position = [row for row, _ in found].index(first) + 1
        found.insert(position, (control, path))
        running.insert(1, (control, path))
        time_together(case, running, rounds)
    return [row for row, _ in found]


def convert(
    case: Case, name: str, converter: Converter, environment: Environment, precision: str
) -> list[tuple[Row, Path | None]]:
    """Return a row, and a file where there is one, for each way that the converter went."""
    state = environment.state()
    if "error" in state:
        return [(Row(name, error=state["error"]), None)]
    exported: dict[str, Any] = {"stages": {}, "seconds": 0.0, "peak_bytes": 0}
    if converter.takes_onnx:
        exported = _export(case, environment)
        if "error" in exported:
            return [(Row(name, error=exported["error"]), None)]
    out = case.folder / f"{converter.environment}.{precision}"
    result = _run(case, environment, converter.adapter, out,
                  precision=precision, options=converter.options)  # fmt: skip
    rows: list[tuple[Row, Path | None]] = []
    for file in result["files"]:
        stages = exported["stages"] | file["stages"]
        stages.pop("load", None)
        row = Row(
            f"{name}, {file['variant']}" if file["variant"] else name,
            error=file.get("error", ""),
            seconds=stages,
            process_s=exported["seconds"] + result["seconds"],
            peak_bytes=max(exported["peak_bytes"], result["peak_bytes"]),
        )
        rows.append((row, Path(file["path"]) if "path" in file else None))
    return rows


def _export(case: Case, environment: Environment) -> dict[str, Any]:
    """Export the ONNX file once for all; in the environment that has torch."""
    out = case.folder / "onnx"
    if not (out / "result.json").is_file():
        with_torch = Environment("edgecls", environment.python, environment.folder)
        state = with_torch.state()
        if "error" in state:
            return {"error": state["error"]}
        result = _run(case, with_torch, "export_onnx.py", out, precision="fp32", options={})
        (out / "result.json").write_text(json.dumps(result))
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return {**found, **found["files"][0]}


def _run(
    case: Case, environment: Environment, adapter: str, out: Path, **job: Any
) -> dict[str, Any]:
    """Run an adapter; return its result with the process's seconds, also where it crashed."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "job.json").write_text(json.dumps({**case.job, **job, "out": str(out)}))
    command = [str(part) for part in (environment.interpreter, PEERS / adapter, out / "job.json")]
    start = time.perf_counter()
    with (out / "log.txt").open("w") as log:
        try:
            done = subprocess.run(
                command, stdout=log, stderr=log, timeout=TIMEOUT_S, cwd=out, env=ENVIRON
            )
            status = f"no result, exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            status = f"no end after {TIMEOUT_S} s"
    seconds = time.perf_counter() - start
    if (out / "result.json").is_file():
        result: dict[str, Any] = json.loads((out / "result.json").read_text())
    else:
        result = {"files": [{"variant": "", "stages": {}, "error": status}], "peak_bytes": 0}
    return result | {"seconds": seconds}


def judge(case: Case, row: Row, path: Path) -> None:
    """Compare a file's answers with torch's and count its operators."""
    row.size_bytes = path.stat().st_size
    out = path.with_suffix(".npy")
    try:
        found = _tflite(
            case, "answers", {"file": str(path), "images": str(case.images), "out": str(out)}
        )
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()[-1:]
        reason = last[0] if last and error.returncode > 0 else f"exit status {error.returncode}"
        row.error = f"the file does not run: {reason}"
        return
    logits = np.load(out)
    row.operators = found["operators"]
    row.difference = relative_difference(case.expected, logits)
    if case.truth is not None:
        answers = logits.argmax(1)
        row.top1 = 100 * float(np.mean(answers == case.truth))
        row.agreement = 100 * float(np.mean(answers == case.expected.argmax(1)))


def time_together(case: Case, running: list[tuple[Row, Path]], rounds: int) -> None:
    """Time files in blocks that take turns, in several processes one after the other."""
    job = {
        "files": [str(path) for _, path in running], "images": str(case.images), "rounds": rounds
    }  # fmt: skip
    runs = [_tflite(case, "latency", job | {"seed": seed}) for seed in range(PROCESSES)]
    blocks = [[time for run in runs for time in run[index]] for index in range(len(running))]
    for (row, _), times, ratio in zip(running, blocks, ratios(blocks, control=1), strict=True):
        row.latency_ms, row.to_best = median(times), ratio


def _tflite(case: Case, what: str, job: dict[str, Any]) -> Any:
    path = case.folder / f"{what}.json"
    path.write_text(json.dumps(job))
    command = [sys.executable, str(PEERS / "run_tflite.py"), what, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _environments(environments: dict[str, Environment]) -> str:
    rows = []
    for name, environment in environments.items():
        state = environment.state()
        if "error" in state:
            rows.append([name, first_line(state["error"]), "", "", ""])
            continue
        packages = state["packages"]
        main_ones = ("torch", "litert-torch", "ai-edge-quantizer", "onnx2tf", "tensorflow",
                     "ai-edge-litert")  # fmt: skip
        versions = ", ".join(f"{p} {packages[p]}" for p in main_ones if p in packages)
        rows.append([name, versions, state["python"], str(len(packages)),
                     f"{state['bytes'] / 1e6:.0f} MB"])  # fmt: skip
    return table(("environment", "versions", "Python", "packages", "size"), rows)


if __name__ == "__main__":
    main()
