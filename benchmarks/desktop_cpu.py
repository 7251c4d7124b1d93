"""What int8 gives on a desktop CPU: ours and ONNX Runtime's quantizer, accuracy and time, one run.

    EDGECLS_DATA=... python benchmarks/desktop_cpu.py [--model lite0|deit] [--rounds 200]

EfficientNet-Lite0, or DeiT-tiny with random weights, whose answers are compared with float32's.
100 photos calibrate, the other 400 judge, on ONNX Runtime's optimised kernels.
Time is the bare session's ``run`` on one thread; the graphs take turns, and of each round the ratio
to the float graph's is taken: the median and the middle half of the rounds are printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from common import data_folder, edgecls, machine, split, table, work_folder
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from precisions import as_toml

from edgecls.bundle import Bundle
from edgecls.data.images import list_images
from edgecls.data.stream import stream_pixels
from edgecls.data.truth import Labels, match_truth

DYNAMIC = "edgecls, `--precision int8-dynamic`"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--model", choices=("lite0", "deit"), default="lite0")
    given = parser.parse_args()
    rounds, trained = given.rounds, given.model == "lite0"
    data = data_folder()
    with work_folder() as folder:
        work = Path(folder)
        calibration, judged = split(data / "imagenet500", work / "photos", 100)
        source = (
            ("timm:tf_efficientnet_lite0", "--weights",
             data / "weights" / "efficientnet-lite0-57934424.pth")
            if trained
            else ("timm:deit_tiny_patch16_224", "--allow-random-weights")
        )  # fmt: skip
        edgecls(
            "export", *source, "--target", "desktop-cpu", "--target", "jetson", "--calib",
            calibration, "--labels", data / "imagenet_classes.json", "--keep-graphs",
            work / "graphs", "-o", work,
        )  # fmt: skip
        manifest = Bundle(work / "desktop-cpu").manifest
        preprocess = work / "preprocess.toml"
        preprocess.write_text(as_toml(manifest.preprocess))
        edgecls(
            "export", work / "graphs" / "float.onnx", "--preprocess", preprocess, "--target",
            "desktop-cpu", "--precision", "int8-dynamic", "-o", work / "dynamic",
        )  # fmt: skip

        def tensors(images: Path) -> Iterator[NDArray[np.float32]]:
            for batch in stream_pixels(list_images(images), manifest.preprocess, size=(224, 224)):
                for pixels in batch.pixels:
                    yield manifest.preprocess.normalize(pixels[None])

        graphs = {
            "float": work / "graphs" / "float.onnx",
            "edgecls, `desktop-cpu`": work / "desktop-cpu" / "model.int8.onnx",
            DYNAMIC: work / "dynamic" / "desktop-cpu" / "model.int8-dynamic.onnx",
            "edgecls, `jetson`'s Q/DQ": work / "graphs" / "qdq.fused.symmetric.onnx",
        }
        for title, activations, form in (
            ("ONNX Runtime's, U8S8, Q/DQ", QuantType.QUInt8, QuantFormat.QDQ),
            ("ONNX Runtime's, U8S8, QOperator", QuantType.QUInt8, QuantFormat.QOperator),
            ("ONNX Runtime's, S8S8, Q/DQ", QuantType.QInt8, QuantFormat.QDQ),
        ):
            graphs[title] = work / f"{len(graphs)}.onnx"
            quantize(graphs["float"], graphs[title], tensors(calibration), activations, form)
        title = "ONNX Runtime's, as it runs"
        graphs[title] = work / "as-it-runs.onnx"
        # Convolutions with signed weights take up to fifty times as long in its ConvInteger.
        # It turns the weights of a Gemm round, and trips over the shapes that the graph states.
        bare = onnx.load(graphs["float"])
        del bare.graph.value_info[:]
        onnx.save(bare, work / "bare.onnx")
        quantize_dynamic(work / "bare.onnx", graphs[title], weight_type=QuantType.QUInt8)

        images = list_images(judged)
        assert manifest.labels is not None
        labels = Labels(names=manifest.labels, synsets=manifest.synsets)
        truth = match_truth(images, num_classes=1000, labels=labels)
        assert truth is not None
        wanted = truth.of(images)
        sessions = {title: session(file, title == DYNAMIC) for title, file in graphs.items()}
        answers = {title: [] for title in sessions}  # type: dict[str, list[NDArray[np.float32]]]
        for tensor in tensors(judged):
            for title, net in sessions.items():
                answers[title].append(net.run(None, {"input": tensor})[0])
        logits = {title: np.concatenate(found) for title, found in answers.items()}
        ratios = times(sessions, tensor, rounds)
        expected = logits["float"]
        rows = []
        for title, found in logits.items():
            noise = 10 * np.log10((expected**2).sum() / max(((found - expected) ** 2).sum(), 1e-9))
            low, middle, high = np.percentile(ratios[title], [25, 50, 75])
            rows.append([
                title, f"{100 * np.mean(found.argmax(1) == wanted):.2f} %" if trained else "",
                f"{100 * np.mean(found.argmax(1) == expected.argmax(1)):.2f} %",
                "" if title == "float" else f"{noise:.2f} dB",
                f"{graphs[title].stat().st_size / 1e6:.2f} MB",
                f"{middle:.2f} ({low:.2f} .. {high:.2f})",
            ])  # fmt: skip
    print(f"{machine()}, one thread, {rounds} rounds\n")
    heading = ("", "top-1", "agrees with float32", "SQNR", "size", "time of float's")
    print(table(heading, rows))


def quantize(
    model: Path, out: Path, images: Iterator[NDArray[np.float32]], activations: QuantType,
    form: QuantFormat,
) -> None:  # fmt: skip
    """Quantize with ONNX Runtime's own tool, min-max and weights per channel."""

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            found = next(images, None)
            return None if found is None else {"input": found}

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared, out, Reader(), quant_format=form, per_channel=True, activation_type=activations,
        weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": activations is QuantType.QInt8},
    )  # fmt: skip


def session(file: Path, unpacked: bool) -> ort.InferenceSession:
    """Open a graph with all optimisations, on one thread, as the backend does."""
    options = ort.SessionOptions()
    if unpacked:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def times(
    sessions: dict[str, ort.InferenceSession], tensor: NDArray[np.float32], rounds: int
) -> dict[str, list[float]]:
    """Return each round's time of each graph over the float graph's."""
    found: dict[str, list[float]] = {title: [] for title in sessions}
    for _ in range(rounds):
        taken = {}
        for title, net in sessions.items():
            start = time.perf_counter()
            net.run(None, {"input": tensor})
            taken[title] = time.perf_counter() - start
        for title, value in taken.items():
            found[title].append(value / taken["float"])
    return found


if __name__ == "__main__":
    main()
