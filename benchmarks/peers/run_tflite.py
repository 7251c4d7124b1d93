"""Runs TFLite files for the benchmark, where a crash does no harm: answers, operators, latency.

python run_tflite.py answers JOB.json     {"file", "images", "out"}: logits, operators
python run_tflite.py latency JOB.json     {"files", "images", "rounds"}: ms, interleaved
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

BLOCK_S = 0.025


def main() -> None:
    """Print the result as JSON."""
    what, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    print(json.dumps(answers(**job) if what == "answers" else latency(**job)))


def answers(file: str, images: str, out: str) -> dict[str, Any]:
    """Save logits (N, classes) float32 of images (N, H, W, C) float32; return the operators."""
    network = Network(Path(file).read_bytes())
    np.save(out, np.concatenate([network(image[None]) for image in np.load(images, "r")]))
    return {"operators": operators(Path(file).read_bytes())}


def latency(files: list[str], images: str, rounds: int, seed: int = 0) -> list[list[float]]:
    """Return the fastest call of each block in ms, [file][round].

    One block of each file per round, in another order each time, as what runs before a file and
    where its memory lies have an effect too; ``seed`` decides the orders.
    """
    generator = np.random.default_rng(seed)
    image = np.asarray(np.load(images, "r")[:1])
    networks: dict[int, Network] = {}
    calls: dict[int, int] = {}
    for index in generator.permutation(len(files)).tolist():
        network = networks[index] = Network(Path(files[index]).read_bytes())
        network(image)
        calls[index] = max(3, round(BLOCK_S / min(network.invoke() for _ in range(3))))
    found: list[list[float]] = [[] for _ in files]
    for _ in range(rounds):
        for index in generator.permutation(len(files)).tolist():
            network = networks[index]
            network.invoke()  # its weights come back into the cache
            found[index].append(1e3 * min(network.invoke() for _ in range(calls[index])))
    return found


def operators(data: bytes) -> dict[str, int]:
    """Return how many operators of each kind a file holds."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()
             if isinstance(code, int)}  # fmt: skip
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    kinds = (names[codes[op.opcodeIndex]] for graph in model.subgraphs for op in graph.operators)
    return dict(Counter(kinds))


class Network:
    """A file with one image in and logits out, float or int8, on one thread."""

    def __init__(self, data: bytes) -> None:
        self._net = Interpreter(model_content=data, num_threads=1)
        self._net.allocate_tensors()
        (self._source,) = self._net.get_input_details()
        (self._result,) = self._net.get_output_details()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return float32 logits (1, classes) of an image (1, H, W, C) float32."""
        if tuple(self._source["shape"]) != image.shape:
            image = image.transpose(0, 3, 1, 2)
        scale, zero_point = self._source["quantization"]
        if self._source["dtype"] == np.int8:
            image = np.clip(np.rint(image / scale) + zero_point, -128, 127).astype(np.int8)
        self._net.set_tensor(self._source["index"], image)
        self._net.invoke()
        logits = self._net.get_tensor(self._result["index"])
        scale, zero_point = self._result["quantization"]
        if self._result["dtype"] == np.int8:
            logits = (logits.astype(np.float32) - zero_point) * scale
        return np.asarray(logits, np.float32)

    def invoke(self) -> float:
        """Run on what was set last; return the seconds of CPU time.

        There is one thread, so on an idle machine that is the time; on a busy one, the turns of
        other processes do not count.
        """
        start = time.process_time()
        self._net.invoke()
        return time.process_time() - start


if __name__ == "__main__":
    main()
