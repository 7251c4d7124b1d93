"""A budget of accuracy: edgecls' search beside NNCF's accuracy control, on the same graph.

    EDGECLS_DATA=... python benchmarks/precision_search_peers.py --make-envs --cache DIR \
        --ours FILE.jsonl --results FILE.jsonl

edgecls' side is what ``precision_search.py`` wrote; for each of its cells NNCF is run. Both get the
float ONNX graph, the calibration images, the tuning images with their truth and the budget; both
quantize activations asymmetrically and weights with the granularity of the cell. NNCF runs in an
environment of its own (``peers/nncf.txt``). Judged on images that decided nothing, with ONNX
Runtime and no optimisation, so that it computes what the graph says.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from common import machine, one_of, table
from converters_environments import PEERS, Environment
from precision_search import in_order, read, scaled, shown
from precision_search_nets import NETS, Prepared, prepare

from edgecls.calibration.placement.layers import COMPUTE
from edgecls.core.progress import Quiet
from edgecls.drift.interval import share_interval
from edgecls.workflows.precision.judging import read_pixels

TIMEOUT_S: Final = 1800


def main() -> None:
    """Compute the cells that are not there, and print all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="Keeps images and weights.")
    parser.add_argument("--results", type=Path, required=True, help="Gets a line for each cell.")
    parser.add_argument("--ours", type=Path, required=True, help="Of precision_search.py.")
    parser.add_argument("--nets", type=one_of(*NETS), nargs="+", default=list(NETS))
    parser.add_argument("--envs", type=Path, default=Path("build/peers"))
    parser.add_argument("--make-envs", action="store_true")
    asked = parser.parse_args()
    cache = asked.cache.resolve()
    environment = Environment("nncf", sys.executable, asked.envs.resolve())
    if asked.make_envs:
        environment.make()
    if "error" in environment.state():
        sys.exit(f"nncf: {environment.state()['error']}")
    for ours in read(asked.ours):
        cell = ours["cell"]
        if cell["net"] not in asked.nets or cell["target"] != "raspberry-pi":
            continue
        if any(row["cell"] == cell for row in read(asked.results)):
            continue
        print(*cell.values(), file=sys.stderr, flush=True)
        prepared = prepare(cell["net"], cell["seed"], cache, cell["epochs"])
        tools = {"edgecls": ours["plans"]["plain"]}
        if "repaired" in ours["plans"]:
            found = ours["plans"]["repaired"]
            seconds = found["seconds"] + ours["recipe_seconds"]
            tools["edgecls, --recipe best"] = found | {"seconds": seconds}
        tools["NNCF"] = accuracy_control(prepared, environment, cell)
        row = {"cell": cell, "int8_loses": ours["ways"]["plain"]["lost"], "tools": tools}
        with asked.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
    packages = environment.state()["packages"]
    print(f"{machine()}, NNCF {packages['nncf']}, ONNX Runtime {packages['onnxruntime']}\n")
    print(report(read(asked.results)))


def accuracy_control(
    prepared: Prepared, environment: Environment, cell: dict[str, Any]
) -> dict[str, Any]:
    """Return what NNCF leaves float and what its graph answers; or why there is none."""
    model, judged, tune = prepared.first.source.model, prepared.judged, prepared.tune
    preprocess = judged.preprocess
    calibrating = read_pixels(
        prepared.calibrating, preprocess, size=prepared.size, known=frozenset(), option="calib",
        progress=Quiet(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        onnx.save(model, out / "float.onnx")
        for file, array in (("calib", calibrating.pixels), ("tune", tune.pixels),
                            ("truth", tune.truth)):  # fmt: skip
            np.save(out / f"{file}.npy", array)
        job = {
            "model": "", "onnx": str(out / "float.onnx"), "pixels": str(out / "calib.npy"),
            # A job's images are divided by 255.
            "mean": [mean * preprocess.scale / 255 for mean in preprocess.mean],
            "std": [std * preprocess.scale / 255 for std in preprocess.std],
            "size": [3, *prepared.size], "precision": "int8", "out": str(out),
            "options": {
                "tune": str(out / "tune.npy"), "truth": str(out / "truth.npy"),
                "max_drop": cell["max_drop"],
                "per_channel": cell["weights"] == "per_channel",
                "transformer": cell["net"].startswith("vit"),
            },
        }  # fmt: skip
        (out / "job.json").write_text(json.dumps(job))
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run(
            [str(environment.interpreter), str(PEERS / "quantize_nncf.py"), str(out / "job.json")],
            env=environ, check=False, timeout=TIMEOUT_S, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if not (out / "result.json").exists():
            return {"error": "it ended without a result"}
        (found,) = json.loads((out / "result.json").read_text())["files"]
        if "error" in found:
            return {"error": found["error"]}
        quantized = onnx.load(found["path"])
    right = judged.expected.argmax(1) == judged.truth
    shares = {}
    for kind, images in (("tune", tune), ("judged", judged)):
        shares[kind] = images.answer(quantized).argmax(1) == images.truth
    left, layers = left_float(quantized)
    return {
        "seconds": found["stages"]["quantize"], "left": left, "layers": layers,
        "estimate": 100 * (tune.float_right - int(shares["tune"].sum())) / len(tune.names),
        "lost": scaled(share_interval(right, shares["judged"], 0.05), 100),
    }  # fmt: skip


def left_float(model: onnx.ModelProto) -> tuple[int, int]:
    """Return how many convolutions and products read something unquantized, and all of them."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    every = [node for node in model.graph.node if node.op_type in COMPUTE]
    quantized = [
        node for node in every
        if all(made_by.get(name) == "DequantizeLinear" for name in node.input[:2])
    ]  # fmt: skip
    return len(every) - len(quantized), len(every)


def report(rows: list[dict[str, Any]]) -> str:
    """Return a table: each cell's tools below one another."""
    found = []
    for row in sorted(rows, key=in_order):
        cell = row["cell"]
        names = [f"{cell['net']}, {cell['weights'].replace('_', ' ')}, seed {cell['seed']}",
                 shown(row["int8_loses"], 1)]  # fmt: skip
        for tool, result in row["tools"].items():
            if "error" in result:
                found.append([*names, tool, result["error"], "", "", ""])
            else:
                found.append([
                    *names, tool, f"{result['left']} of {result['layers']}",
                    f"{result['estimate']:.1f}", shown(result["lost"], 1),
                    f"{result['seconds']:.0f} s",
                ])  # fmt: skip
            names = ["", ""]
    return table(("", "int8 loses", "", "layers left float", "estimate", "loses", "time"), found)


if __name__ == "__main__":
    main()
