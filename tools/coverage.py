"""Converts the classifiers of timm and torchvision and writes docs/coverage.md.

Each model runs in a process of its own; what it gave is kept in build/coverage/ and taken from
there until the conversion's sources change.

    python tools/coverage.py            all of them, and the document
    python tools/coverage.py NAME...    these
    python tools/coverage.py --document the document, of the results that are there
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from coverage_document import document
from coverage_models import ARGUMENTS, MODELS

ROOT: Final = Path(__file__).resolve().parent.parent
CACHE: Final = ROOT / "build" / "coverage"
DOCUMENT: Final = ROOT / "docs" / "coverage.md"
TIMEOUT_S: Final = 600
CALIBRATION: Final = 8
IMAGES: Final = 4
# What decides the graph that torch gives, and what decides all that is made of it.
_EXPORT: Final = ("export/torch_onnx.py", "export/simplify.py", "core/torchvision_ops.py")
_CONVERSION: Final = ("export", "calibration", "core", "tools/coverage.py", "tools/layers.py")


def main() -> None:
    """Run what is missing, and write the document where all is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="as in coverage_models.py")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--document", action="store_true", help="run nothing")
    options = parser.parse_args()
    if options.one:
        run_one(options.one)
        return
    results = {}
    for name in options.names or MODELS:
        if options.document:
            results[name] = _kept(name) or {"error": "it has not been run"}
        else:
            results[name] = cached(name)
            print(json.dumps({"name": name, **results[name]}), flush=True)
    if not options.names:
        DOCUMENT.write_text(document(results))


def _kept(name: str) -> dict[str, Any]:
    path = CACHE / f"{_file_name(name)}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def cached(name: str) -> dict[str, Any]:
    """Return a model's result, from the cache where the sources have not changed."""
    path = CACHE / f"{_file_name(name)}.json"
    sources = _digest([*_EXPORT, *_CONVERSION])
    kept = _kept(name)
    if kept.get("sources") == sources:
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT)
        failure = f"exit status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    except subprocess.TimeoutExpired:
        failure = f"no end after {TIMEOUT_S} s"
    result = _kept(name) or {"error": failure}
    result["sources"] = sources
    path.write_text(json.dumps(result, indent=1))
    return result


def run_one(name: str) -> None:
    """Convert one model and write its result, as far as it came."""
    from edgecls.core.errors import EdgeclsError

    result: dict[str, Any] = {}
    path = CACHE / f"{_file_name(name)}.json"
    try:
        _convert(name, result)
    except EdgeclsError as error:
        result["error"] = str(error)
    path.write_text(json.dumps(result))


def _convert(name: str, result: dict[str, Any]) -> None:
    import numpy as np
    import onnx
    import torch
    from layers import compare_layers

    from edgecls.calibration.collect import collect_ranges
    from edgecls.calibration.placement import place_qdq
    from edgecls.core.progress import Quiet
    from edgecls.core.values import relative_difference
    from edgecls.export.passes import for_one_image, fuse
    from edgecls.export.tflite import lower, try_in_subprocess
    from edgecls.targets.raspberry_pi import TARGET
    from edgecls.workflows.timing import Stages

    torch.set_num_threads(1)
    stages = Stages(Quiet())
    data, images, expected = _exported(name, stages)
    with stages.stage("fuse"):
        graph = fuse(onnx.ModelProto.FromString(data))
    with stages.stage("lower"):
        lowered = lower(graph)
    result["seconds"] = {key: round(value, 2) for key, value in stages.seconds.items()}
    try_in_subprocess(lowered.data)
    found = _run(lowered, images[:IMAGES])
    result["float_difference"] = relative_difference(expected[:IMAGES], found)
    result["float_transposes"] = lowered.transposes

    table = collect_ranges(
        graph, [(f"{i:02}", image[None]) for i, image in enumerate(images)], method="minmax", seed=0
    )
    quantized = place_qdq(for_one_image(graph), table, TARGET.scheme).model
    with stages.stage("lower int8"):
        lowered = lower(quantized)
    result["seconds"] = {key: round(value, 2) for key, value in stages.seconds.items()}
    try_in_subprocess(lowered.data)
    kinds = {node.name: node.op_type for node in quantized.graph.node}
    result["int8_operators"] = lowered.quantized
    result["float_operators"] = dict(Counter(kinds.get(n, n) for n in lowered.left_float))
    result["int8_transposes"] = lowered.transposes
    result["bytes"] = len(lowered.data)
    simulated = _simulate(quantized, images[:IMAGES])
    scale = next(f for n, f in lowered.forms.items() if n == quantized.graph.output[0].name).quant
    step = scale.scale if scale is not None else 1.0
    ends = np.abs(np.rint(simulated / step) - np.rint(_run(lowered, images[:IMAGES]) / step))
    result["ends"] = _shares(ends)
    result["correlation"] = float(np.corrcoef(expected[:IMAGES].ravel(), simulated.ravel())[0, 1])
    layers = compare_layers(quantized, lowered, images[:1])
    result["layers"] = _shares(np.concatenate([layer.steps.ravel() for layer in layers]))
    worst = sorted(layers, key=lambda layer: float((layer.steps <= 1).mean()))[:3]
    result["worst"] = [
        [layer.operator, layer.name, float((layer.steps <= 1).mean()), int(layer.steps.max())]
        for layer in worst
    ]


def _shares(steps: Any) -> list[float]:
    """Return the shares within one and two steps, and the largest."""
    return [float((steps <= 1).mean()), float((steps <= 2).mean()), float(steps.max())]


def _exported(name: str, stages: Any) -> tuple[bytes, Any, Any]:
    """Return the simplified graph, images and torch's logits; kept until the exporter changes."""
    import numpy as np
    import torch

    from edgecls.export.simplify import simplify
    from edgecls.export.torch_onnx import TorchToOnnx

    stem = CACHE / f"{_file_name(name)}.{_digest(_EXPORT)[:8]}"
    graph, arrays = stem.with_name(stem.name + ".onnx"), stem.with_name(stem.name + ".npz")
    if not (graph.is_file() and arrays.is_file()):
        module = _build(name)
        images = _blots(MODELS[name])
        with torch.inference_mode():
            expected = module(torch.from_numpy(images)).numpy()
        start = time.perf_counter()
        model = simplify(TorchToOnnx(input_size=images.shape[1:])(module))
        np.savez(arrays, images=images, expected=expected, seconds=time.perf_counter() - start)
        graph.write_bytes(model.SerializeToString())
    kept = np.load(arrays)
    stages.seconds["torch -> ONNX"] = float(kept["seconds"])
    return graph.read_bytes(), kept["images"], kept["expected"]


def _build(name: str) -> Any:
    """Return a module with random weights in which no part is dead."""
    import torch

    from edgecls.core.torchvision_ops import import_timm, import_torchvision

    zoo, _, architecture = name.partition(":")
    torch.manual_seed(0)
    arguments = ARGUMENTS.get(name, {})
    if zoo == "timm":
        module = import_timm().create_model(architecture, pretrained=False, **arguments)
    else:
        if architecture in ("googlenet", "inception_v3"):
            arguments = {"init_weights": False, "transform_input": True, **arguments}
        module = import_torchvision().models.get_model(architecture, weights=None, **arguments)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.75, 1.25)
            torch.nn.init.normal_(layer.bias, 0.0, 0.1)
            torch.nn.init.normal_(layer.running_mean, 0.0, 0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    for parameter in module.parameters():
        # Zero biases, and layer scales that start at 1e-6.
        if parameter.abs().max() < 1e-3:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    return module.eval()


def _blots(side: int) -> Any:
    """Return smooth random images, (N, 3, side, side), about standard normal."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    images = []
    for _ in range(CALIBRATION):
        codes = generator.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        image = Image.fromarray(codes).resize((side, side), Image.Resampling.BICUBIC)
        images.append((np.asarray(image, np.float32) - 127.5) / 60)
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def _run(lowered: Any, images: Any) -> Any:
    """Return LiteRT's logits as float32, one image at a time."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=lowered.data, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        batch = image[None].transpose(0, 2, 3, 1)
        if source["dtype"] == np.int8:
            scale, zero_point = source["quantization"]
            codes = np.rint(batch / np.float32(scale)) + zero_point
            batch = np.clip(codes, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], batch)
        interpreter.invoke()
        logits = interpreter.get_tensor(result["index"]).astype(np.float32)
        if result["dtype"] == np.int8:
            scale, zero_point = result["quantization"]
            logits = (logits - zero_point) * np.float32(scale)
        found.append(logits)
    return np.concatenate(found)


def _simulate(model: Any, images: Any) -> Any:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def _digest(paths: Iterable[str]) -> str:
    """Return a hash of source files, or of all those in folders."""
    digest = hashlib.sha256()
    for path in (ROOT / name for name in paths):
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _file_name(name: str) -> str:
    return name.replace(":", "-")


if __name__ == "__main__":
    main()
