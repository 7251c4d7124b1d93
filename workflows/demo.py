"""The whole chain on an embedded default: LeNet-5 on 5,000 digits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from ..core.errors import CheckFailedError
from ..core.preprocess import PRESETS
from ..core.progress import Progress
from ..core.values import Precision
from ..data.dataset import Dataset
from ..data.images import list_images
from ..data.mnist import mnist_5k, write_image_folder
from ..data.split import split_by_content
from ..drift.report import DriftReport
from ..models import load_model
from ..runtimes import load
from ..targets import TARGETS
from ..targets.target import BackendName
from ..training import Fit, Settings, in_memory, save_weights
from .answering import DataOptions
from .drift import DriftOptions, drift
from .export import ExportResult, export
from .export_options import ExportOptions
from .sources import ModelOptions, from_predictor, torch_threads
from .timing import Stages

JUDGED: Final = 1000
EPOCHS: Final = 10
CALIBRATION: Final = 200
LOWEST_ACCURACY: Final = 95.0
_LATENCY_IMAGES: Final = 200
_DIGITS: Final = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRow:
    """What one bundle turned out to be.

    Attributes:
        target: Its name.
        precision: Of what ran.
        path: Its folder.
        size_bytes: Of the file that ran.
        backend: What ran it here.
        simulated: Whether that is not what runs on the device.
        predict_ms: Median of ``predict`` from the file on disk, all stages.
        report: The drift check against the trained model.
    """

    target: str
    precision: Precision
    path: Path
    size_bytes: int
    backend: BackendName
    simulated: bool
    predict_ms: float
    report: DriftReport


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Everything that the demonstration made."""

    export: ExportResult
    rows: tuple[DemoRow, ...]
    seconds: dict[str, float]

    @property
    def exit_code(self) -> int:
        """0 where every bundle passed the gate, 1 where one failed, else 5: undecided."""
        codes = {row.report.verdict.exit_code for row in self.rows}
        return 1 if 1 in codes else max(codes)


def demo(out: Path, progress: Progress, *, seed: int = 0) -> DemoResult:
    """Train, export for every target, predict, and run the drift check.

    Raises:
        EdgeclsError: A step failed.
        CheckFailedError: The trained model is worse than LeNet-5 is on these digits.
    """
    stages = Stages(progress)
    with stages.stage("read digits"):
        images, labels = mnist_5k()
        train, judged = split_by_content(images, labels, held_out=JUDGED, seed=seed)
        for name, indices in (("train", train), ("judged", judged)):
            write_image_folder(images[indices], labels[indices], out / "data" / name, _DIGITS)
    weights = out / "lenet5.safetensors"
    with stages.stage("train LeNet-5"):
        module = load_model("lenet5").module
        assert module is not None
        # Layers this small are faster so, and the weights do not depend on the number of cores.
        with torch_threads(1):
            settings = Settings(epochs=EPOCHS, seed=seed)
            pixels = images[train][..., None]
            digits = Dataset(name="digits", classes=_DIGITS, labels=labels[train], pixels=pixels)
            batches, steps = in_memory(digits, PRESETS["mnist"], settings)
            Fit(settings=settings, train=batches, steps_per_epoch=steps, progress=progress)(module)
        save_weights(module, weights)
    names = out / "labels.txt"
    names.write_text("\n".join(_DIGITS) + "\n", encoding="utf-8")
    with stages.stage("export"):
        exported = export(
            ExportOptions(
                source="lenet5", weights=weights, targets=tuple(TARGETS), out=out / "bundles",
                calib=out / "data" / "train", calib_images=CALIBRATION, labels=names, seed=seed,
            ),
            progress,
        )  # fmt: skip
    with stages.stage("predict and drift"):
        rows = tuple(
            _judge(bundle.path, out / "data" / "judged", weights, progress)
            for bundle in exported.bundles
        )
    graded = rows[0].report.metrics.graded
    accuracy = 0.0 if graded is None else graded.top1.reference
    if accuracy < LOWEST_ACCURACY:
        raise CheckFailedError(
            f"LeNet-5 was trained to {accuracy} %, expected {LOWEST_ACCURACY} % or more"
        )
    return DemoResult(export=exported, rows=rows, seconds=stages.seconds)


def _judge(path: Path, data: Path, weights: Path, progress: Progress) -> DemoRow:
    predictor = load(path, allow_fallback=True)
    options = DriftOptions(
        reference="lenet5", model=ModelOptions(weights=weights), data=DataOptions(data=data)
    )
    report = drift(from_predictor(predictor), options, progress)
    total = []
    for image in list_images(data)[:_LATENCY_IMAGES]:
        start = time.perf_counter()
        predictor.predict(image.path)
        total.append((time.perf_counter() - start) * 1e3)
    manifest = predictor.bundle.manifest
    return DemoRow(
        target=manifest.target,
        precision=predictor.precision,
        path=path,
        size_bytes=manifest.files[predictor.artefact.path].size_bytes,
        backend=predictor.backend,
        simulated=predictor.fell_back is not None,
        predict_ms=median(total),
        report=report,
    )
