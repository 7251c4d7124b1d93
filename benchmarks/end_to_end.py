"""From a JPEG file to its classes: ``predict`` beside Ultralytics' and Hugging Face's pipelines.

    EDGECLS_DATA=... python benchmarks/end_to_end.py --make-envs

All run the same EfficientNet-Lite0 in float32, one ONNX file on the same ONNX Runtime and one
TFLite file on the same LiteRT; its input is a pixel / 255, as Ultralytics' is, and its answer the
logits. All do the same: shorter side to 224 px, bilinear, centre crop, softmax (Ultralytics' model
would have one, so it does none here), on one thread. Each is a process of its own, in an
environment of its own (``peers/NAME.txt``). They take the photos by turns, in random order, once a
round; every round starts new processes. The interval of a ratio is that of all its rounds' ratios,
from the least to the largest: of 6 it holds the median with 97 %. CPU time is given beside the
clock's: what other programs take of the machine is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import onnx
import torch
from common import data_folder, edgecls, machine, table, work_folder
from converters_environments import PEERS, Environment
from draft import enlarged

from edgecls import Bundle
from edgecls.data.images import list_images
from edgecls.models import load_model

SIDE: Final = 224
WARMUP: Final = 5
Answers = dict[str, list[dict[str, Any]]]
SHIPPED: Final = "edgecls int8, LiteRT"
LARGE: Final = 3000  # px; 4:3 are 12 MP
PREPROCESS: Final = f"""[preprocess]
resize = {SIDE}
crop = {SIDE}
interpolation = "bilinear"
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
"""


@dataclass(frozen=True)
class Pipeline:
    """A way from a file to its classes.

    Attributes:
        name: Of the table's row.
        script: In ``peers/``.
        environment: None is the one that runs this script.
        arguments: Of the script.
        against: The row of edgecls that runs the same file; None of edgecls itself.
    """

    name: str
    script: str
    environment: str | None
    arguments: tuple[str, ...]
    against: str | None = None


def main() -> None:
    """Print a table for the photos, and one for photos of 12 megapixels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--envs", type=Path, default=Path("build/peers"))
    parser.add_argument("--make-envs", action="store_true")
    options = parser.parse_args()
    data = data_folder()
    folder = options.envs.resolve()
    environments = {
        name: Environment(name, sys.executable, folder) for name in ("ultralytics", "transformers")
    }
    for environment in environments.values():
        if options.make_envs:
            environment.make()
        if "error" in environment.state():
            sys.exit(f"{environment.name}: {environment.state()['error']}")
    photos = [image.path for image in list_images(data / "imagenet500")][: options.photos]
    with work_folder() as name:
        pipelines = prepare(Path(name), data)
        large = Path(name) / "large"
        large.mkdir()
        for index, photo in enumerate(photos[: options.photos // 3]):
            (large / photo.name).write_bytes(enlarged(photo, LARGE, index))
        print(f"{machine()}, {options.rounds} rounds")
        workloads = {
            f"{len(photos)} photos, shorter side 256 px": photos,
            f"{options.photos // 3} photos of 12 megapixels": sorted(large.iterdir()),
        }
        rounds = []
        for _ in range(options.rounds):
            rounds.append(measure(pipelines, environments, workloads))
            print(".", end="", file=sys.stderr, flush=True)
        for title in workloads:
            print(f"\n### {title}\n\n{report(pipelines, [one[title] for one in rounds])}")


class FromPixels(torch.nn.Module):
    """EfficientNet-Lite0 whose input is a pixel / 255, as Ultralytics feeds its models."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.net = load_model("timm:tf_efficientnet_lite0", weights=weights).module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of (1, 3, 224, 224) in 0..1."""
        logits: torch.Tensor = self.net((image * 255 - 127) / 128)
        return logits


def prepare(folder: Path, data: Path) -> list[Pipeline]:
    """Make the model's files, and say who runs which."""
    source = folder / "source.onnx"
    module = FromPixels(data / "weights" / "efficientnet-lite0-57934424.pth").eval()
    torch.onnx.export(
        module, (torch.zeros(1, 3, SIDE, SIDE),), source, dynamo=True, verbose=False,
        input_names=["pixel_values"], output_names=["logits"], external_data=False,
    )  # fmt: skip
    (folder / "preprocess.toml").write_text(PREPROCESS)
    drafted = PREPROCESS + "draft = 2\n"
    (folder / "draft.toml").write_text(drafted)
    for name in ("preprocess", "draft"):
        edgecls(
            "export", source, "--target", "desktop-gpu", "--target", "raspberry-pi",
            "--precision", "fp32", "--preprocess", folder / f"{name}.toml", "-o", folder / name,
        )  # fmt: skip
    edgecls(
        "export", source, "--target", "raspberry-pi", "--precision", "int8", "--calib",
        data / "imagenet500", "--calib-images", 100, "--preprocess", folder / "preprocess.toml",
        "-o", folder / "int8",
    )  # fmt: skip
    bundle = folder / "preprocess"
    graph, lite = (artefact(bundle / target) for target in ("desktop-gpu", "raspberry-pi"))
    peers = folder / "peers"
    peers.mkdir()
    model = onnx.load(graph)
    metadata = {
        "task": "classify",
        "stride": "1",
        "batch": "1",
        "channels": "3",
        "imgsz": f"[{SIDE}, {SIDE}]",
        "names": str({i: str(i) for i in range(1000)}),
    }
    onnx.helper.set_model_props(model, metadata)  # what Ultralytics' own export writes
    onnx.save(model, peers / "model.onnx")
    (peers / "config.json").write_text(json.dumps({
        "model_type": "efficientnet", "architectures": ["EfficientNetForImageClassification"],
        "id2label": {str(i): str(i) for i in range(1000)},
        "label2id": {str(i): i for i in range(1000)},
    }))  # fmt: skip
    (peers / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "resample": 2,
        "size": {"shortest_edge": SIDE}, "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE}, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": False, "do_convert_rgb": True,
    }))  # fmt: skip
    onnx_here, lite_here = "edgecls, ONNX Runtime", "edgecls, LiteRT"
    pi, gpu = "raspberry-pi", "desktop-gpu"

    def ours(name: str, bundle: Path, backend: str) -> Pipeline:
        return Pipeline(name, "predict_edgecls.py", None, (str(bundle), backend))

    def ultralytics(name: str, file: Path, against: str) -> Pipeline:
        return Pipeline(name, "predict_ultralytics.py", "ultralytics", (str(file),), against)

    return [
        ours(onnx_here, bundle / gpu, "onnxruntime"),
        ultralytics("Ultralytics, ONNX Runtime", peers / "model.onnx", onnx_here),
        Pipeline("transformers + Optimum, ONNX Runtime", "predict_transformers.py",
                 "transformers", (str(peers),), onnx_here),
        ours(lite_here, bundle / pi, "litert"),
        ultralytics("Ultralytics, LiteRT", lite, lite_here),
        ours(SHIPPED, folder / "int8" / pi, "litert"),
        ours(f"{onnx_here}, draft 2", folder / "draft" / gpu, "onnxruntime"),
        ours(f"{lite_here}, draft 2", folder / "draft" / pi, "litert"),
    ]  # fmt: skip


def artefact(bundle: Path) -> Path:
    """Return the file that runs."""
    return bundle / Bundle(bundle).manifest.artefacts[0].path


def measure(
    pipelines: Sequence[Pipeline],
    environments: dict[str, Environment],
    workloads: dict[str, Sequence[Path]],
) -> dict[str, Answers]:
    """Return each pipeline's answers to each workload's photos, from one process each."""
    running = {one.name: start(one, environments) for one in pipelines}
    try:
        for process in running.values():
            ready = process.stdout.readline()
            if "version" not in (json.loads(ready) if ready else {}):
                sys.exit(f"{process.args}: expected its version, found {ready!r}")
        return {title: by_turns(running, photos) for title, photos in workloads.items()}
    finally:
        for process in running.values():
            process.stdin.close()
            process.wait()


def by_turns(running: dict[str, Any], photos: Sequence[Path]) -> Answers:
    """Return the answers to the photos: for each, every process once, in random order."""
    answers: Answers = {name: [] for name in running}
    for index, photo in enumerate([*photos[:WARMUP], *photos]):
        for name in random.sample(list(running), len(running)):
            process = running[name]
            process.stdin.write(f"{photo}\n")
            process.stdin.flush()
            said = process.stdout.readline()
            if not said:
                sys.exit(f"{process.args}: no answer to {photo}")
            if index >= WARMUP:
                answers[name].append(json.loads(said))
    return answers


def start(pipeline: Pipeline, environments: dict[str, Environment]) -> Any:
    """Start a pipeline; its first line says that it is ready."""
    own = pipeline.environment is None
    python = sys.executable if own else environments[str(pipeline.environment)].interpreter
    environ = {key: value for key, value in os.environ.items() if own or key != "PYTHONPATH"}
    return subprocess.Popen(
        [str(python), str(PEERS / pipeline.script), *pipeline.arguments], env=environ, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def report(pipelines: Sequence[Pipeline], rounds: Sequence[Answers]) -> str:
    """Return the table: medians, ratios to edgecls, and equal answers."""
    medians = {
        kind: {one.name: [median(answer[kind] for answer in found[one.name]) for found in rounds]
               for one in pipelines}
        for kind in ("ms", "cpu_ms")
    }  # fmt: skip
    expected = [answer["top1"] for answer in rounds[0][pipelines[0].name]]
    rows = []
    for one in pipelines:
        same = sum(answer["top1"] == right for answer, right
                   in zip(rounds[0][one.name], expected, strict=True))  # fmt: skip
        row = [one.name]
        for of_all in medians.values():
            row += [f"{median(of_all[one.name]):.2f} ms", ratio(of_all, one, one.against)]
        row.append(ratio(medians["cpu_ms"], one, SHIPPED if one.against else None))
        rows.append((*row, f"{same} of {len(expected)}"))
    header = ("", "file to classes", "/ same file", "CPU time", "/ same file", "/ int8",
              "same top-1")  # fmt: skip
    return table(header, rows)


def ratio(medians: dict[str, list[float]], one: Pipeline, against: str | None) -> str:
    """Return the median of the rounds' ratios, and their least and largest."""
    if against is None:
        return ""
    found = sorted(
        theirs / ours for theirs, ours in zip(medians[one.name], medians[against], strict=True)
    )
    return f"{median(found):.2f} [{found[0]:.2f}, {found[-1]:.2f}]"


if __name__ == "__main__":
    main()
