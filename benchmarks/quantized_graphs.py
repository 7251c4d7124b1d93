"""Graphs that other tools have quantized, exported to TFLite and for TensorRT, in one run.

    EDGECLS_DATA=... python benchmarks/quantized_graphs.py --make-envs
    EDGECLS_DATA=... python benchmarks/quantized_graphs.py [resnet20] [vit-tiny] [mobilenet-v2]

Every tool runs in an environment (``peers/NAME.txt``) and a process of its own, on the same 60
images. ``edgecls export`` takes each graph as it is, with ``--calib``, and for desktop-gpu.
The graph itself, run by ONNX Runtime without optimisation, judges the file made with ``--calib``:
CIFAR ResNet-20 on 1,000 test images; ViT-Tiny and MobileNetV2 have random weights and 200 photos.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from calibration_peers import environments_table
from common import data_folder, machine, one_of, work_folder
from converters import ENVIRON, TIMEOUT_S
from converters_environments import PEERS, Environment
from peers.job import first_line
from quantized_graphs_cases import CALIBRATION, RANDOM, Case, prepare, run_adapter
from quantized_graphs_report import Answers, Row, compared, report

from edgecls.core.values import Logits
from edgecls.runtimes import load

ENVIRONMENTS: Final = ("onnxruntime", "torchao", "brevitas", "modelopt")
NETWORKS: Final = ("resnet20", *RANDOM)


@dataclass(frozen=True)
class Way:
    """A tool and how it is told to quantize, as the table has them.

    Attributes:
        tool: Its name.
        how: Its options in words.
        environment: The name of its environment.
        adapter: Its script in ``peers/``.
        options: What the adapter is told.
    """

    tool: str
    how: str
    environment: str
    adapter: str
    options: dict[str, Any] = field(default_factory=dict)


def _onnxruntime(
    how: str, activation: str, *, weight: str = "QInt8", per_channel: bool = True,
    reduce_range: bool = False, operators: list[str] | None = None, opset: int = 17,
    **extra: bool,
) -> Way:  # fmt: skip
    options = {
        "activation": activation, "weight": weight, "per_channel": per_channel, "opset": opset,
        "reduce_range": reduce_range, "operators": operators, "extra": extra,
    }  # fmt: skip
    adapter = "quantize_onnxruntime_static.py"
    return Way("ONNX Runtime", how, "onnxruntime", adapter, options)


SYMMETRIC: Final = {"ActivationSymmetric": True}
COMMON: Final = [
    _onnxruntime("QUInt8, per channel", "QUInt8"),
    _onnxruntime("QInt8, ActivationSymmetric", "QInt8", **SYMMETRIC),
]
# A network's first two say what others of it would say again: the forms are in the resnet's.
FORMS: Final = [
    _onnxruntime("AddQDQPairToWeight", "QInt8", AddQDQPairToWeight=True),
    _onnxruntime(
        "AddQDQPairToWeight, ActivationSymmetric", "QInt8", AddQDQPairToWeight=True,
        QuantizeBias=False, **SYMMETRIC,
    ),
    _onnxruntime("uint8 weights, WeightSymmetric", "QUInt8", weight="QUInt8", WeightSymmetric=True),
    _onnxruntime("QuantizeBias=False", "QInt8", QuantizeBias=False),
    _onnxruntime("DedicatedQDQPair", "QUInt8", DedicatedQDQPair=True),
    _onnxruntime("UseQDQContribOps", "QUInt8", UseQDQContribOps=True),
    _onnxruntime("per tensor", "QUInt8", per_channel=False),
    _onnxruntime("reduce_range", "QUInt8", reduce_range=True),
    _onnxruntime("QInt16, ActivationSymmetric", "QInt16", opset=21, **SYMMETRIC),
    *(_onnxruntime(f"opset {opset}", "QUInt8", opset=opset) for opset in (13, 15, 18, 19, 20, 22)),
    _onnxruntime("only Conv", "QUInt8", operators=["Conv"]),
    Way("torchao", "PT2E, XNNPACKQuantizer", "torchao", "quantize_torchao.py",
        {"symmetric": False}),
    Way("torchao", "PT2E, symmetric int8", "torchao", "quantize_torchao.py", {"symmetric": True}),
    Way("torch.ao", "FakeQuantize, symmetric", "torchao", "quantize_torch_ao.py",
        {"symmetric": True}),
    Way("torch.ao", "FakeQuantize, quint8", "torchao", "quantize_torch_ao.py",
        {"symmetric": False}),
    Way("Brevitas", "Int8ActPerTensorFloat, per channel", "brevitas", "quantize_brevitas.py",
        {"scheme": {"weight_quant": "Int8WeightPerChannelFloat",
                    "input_quant": "Int8ActPerTensorFloat", "bias_quant": None}}),
    Way("Brevitas", "ShiftedUint8ActPerTensorFloat, Int32Bias", "brevitas", "quantize_brevitas.py",
        {"scheme": {"weight_quant": "Int8WeightPerTensorFloat",
                    "input_quant": "ShiftedUint8ActPerTensorFloat", "bias_quant": "Int32Bias"}}),
    Way("modelopt", "torch, INT8_DEFAULT_CFG", "modelopt", "quantize_modelopt_torch.py"),
    Way("modelopt", "onnx, int8, max", "modelopt", "quantize_modelopt.py", {"method": "max"}),
]  # fmt: skip


def main() -> None:
    """Make environments, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", type=one_of(*NETWORKS), default=[])
    parser.add_argument("--make-envs", action="store_true", help="make what is missing, and end")
    parser.add_argument("--envs", type=Path, default=PEERS.parent.parent / "build" / "peers")
    parser.add_argument("--only", nargs="+", choices=ENVIRONMENTS, default=ENVIRONMENTS,
                        help="the tools of these environments")  # fmt: skip
    parser.add_argument("--keep", type=Path, help="leave all files and logs in a new folder")
    parser.add_argument("--json", type=Path, help="also write all that was measured to a file")
    given = parser.parse_args()
    environments = {
        name: Environment(name, sys.executable, given.envs.resolve()) for name in given.only
    }
    if given.make_envs:
        for environment in environments.values():
            environment.make()
    print(f"{machine()}\n\n{environments_table(environments)}\n", flush=True)
    if given.make_envs:
        return
    measured: dict[str, Any] = {"machine": machine(), "networks": {}}
    with contextlib.nullcontext(given.keep) if given.keep else work_folder() as folder:
        for name in given.networks or NETWORKS:
            case = prepare(name, data_folder(), Path(folder).resolve() / name)
            ways = [way for way in (*COMMON, *(FORMS if name == "resnet20" else ()))
                    if way.environment in environments]  # fmt: skip
            rows = []
            for number, way in enumerate(ways):
                rows.append(measure(case, way, environments[way.environment], str(number)))
                print(json.dumps(asdict(rows[-1])), file=sys.stderr, flush=True)
            print(report(case.title, rows), flush=True)
            measured["networks"][name] = [asdict(row) for row in rows]
    if given.json:
        given.json.write_text(json.dumps(measured, indent=1))


def measure(case: Case, way: Way, environment: Environment, place: str) -> Row:
    """Quantize, export in three ways and judge."""
    state = environment.state()
    if "error" in state:
        return Row(way.tool, way.how, state["error"])
    out = case.folder / place
    command = (environment.interpreter, PEERS / way.adapter)
    made = run_adapter(case, command, out, way.options, ENVIRON, TIMEOUT_S)
    if "error" in made:
        return Row(way.tool, way.how, made["error"])
    graph = Path(made["path"])
    plain = _export(case, graph, out / "as-it-is", "raspberry-pi")
    calib = ("--calib", case.calibration, "--calib-images", CALIBRATION)
    filled = _export(case, graph, out / "filled", "raspberry-pi", *calib)
    tensorrt = _export(case, graph, out / "tensorrt", "desktop-gpu")
    if "error" in filled:
        return Row(way.tool, way.how, filled["error"], tensorrt=_tensorrt(tensorrt))
    return Row(
        way.tool, way.how,
        left=None if "error" in plain else plain["left"],
        filled=filled["left"],
        lowest_codes=filled["lowest_codes"],
        answers=_answers(case, graph, out / "filled" / "raspberry-pi"),
        tensorrt=_tensorrt(tensorrt),
    )  # fmt: skip


def _export(case: Case, graph: Path, out: Path, target: str, *options: object) -> dict[str, Any]:
    """Return what an export left in float, how many codes were -128 and its formats; or why not."""
    command = ["export", graph, "--preprocess", case.preprocess, "--target", target, *options,
               "--json", "-o", out]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "edgecls", *map(str, command)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    out.with_suffix(".log").write_text(done.stderr)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return {"error": first_line("\n".join(errors) or done.stderr)}
    (bundle,) = json.loads(done.stdout)["bundles"]
    lowest = re.search(r"note: (\d+) weight code\(s\) -128", done.stderr)
    return {
        "left": len(bundle["artefacts"][0]["left_float"]),
        "lowest_codes": int(lowest[1]) if lowest else 0,
        "files": [artefact["path"] for artefact in bundle["artefacts"]],
    }


def _tensorrt(exported: dict[str, Any]) -> str:
    if "error" in exported:
        asymmetric = "zero point is not 0" in exported["error"]
        return "zero points" if asymmetric else exported["error"]
    built = any(name.endswith(".engine") for name in exported["files"])
    return "yes" if built else "exported; TensorRT-RTX is not installed"


def _answers(case: Case, graph: Path, bundle: Path) -> Answers:
    predictor = load(bundle, allow_fallback=True, threads=1)
    found = [predictor.logits(image[None]) for image in case.pixels]
    predictor.close()
    network, reference = (_logits(path, case.tensors) for path in (Path(case.job["onnx"]), graph))
    return compared(network, reference, np.concatenate(found), case.truth)


def _logits(graph: Path, tensors: np.ndarray) -> Logits:
    """Return (N, classes): one image at a time, as some of the graphs take no more."""
    options = ort.SessionOptions()
    # Optimised, ONNX Runtime computes on codes and rounds elsewhere: another reference.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in tensors])


if __name__ == "__main__":
    main()
