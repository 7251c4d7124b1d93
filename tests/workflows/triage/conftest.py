"""A network trained on drawn signs, its bundles, and copies of them with a fault in it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from edgecls.bundle import Bundle, Draft, write_bundles
from edgecls.bundle.manifest import Manifest
from edgecls.core.progress import Quiet
from edgecls.data.dataset import Dataset
from edgecls.drift.explanation import Explanation
from edgecls.models import load_model
from edgecls.runtimes import load
from edgecls.runtimes.preprocess import to_pixels
from edgecls.training import Fit, Settings, in_memory, save_weights
from edgecls.workflows.answering import DataOptions
from edgecls.workflows.export import export
from edgecls.workflows.export_options import ExportOptions
from edgecls.workflows.sources import ModelOptions, from_predictor
from edgecls.workflows.triage import ExplainOptions, explain

HERE = Path(__file__).parent
SOURCE = "signs_model:signs"


def _drawing() -> Any:
    spec = importlib.util.spec_from_file_location("signs", HERE / "signs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


drawing = _drawing()


@dataclass(frozen=True)
class Signs:
    """A trained model with its data and bundles.

    Attributes:
        root: The folder that holds all of it.
        weights: Of ``SOURCE``.
        preprocess: A TOML file.
        labels: The class names in the model's order.
        judged: 160 images as PNG files.
    """

    root: Path
    weights: Path
    preprocess: Path
    labels: Path
    judged: Path

    def bundle(self, target: str = "raspberry-pi") -> Path:
        return self.root / "bundles" / target

    @property
    def graph(self) -> Path:
        """The float graph: as a reference it needs no export, so that tests are short."""
        return self.root / "graphs" / "float.onnx"

    def explained(self, candidate: Path, **changed: Any) -> Explanation:
        """Explain a candidate by the float graph, or by what ``changed`` says."""
        data = changed.pop("data", self.judged)
        options = ExplainOptions(
            **{
                "reference": str(self.graph),
                "model": ModelOptions(preprocess=str(self.preprocess)),
                "labels": self.labels,
                "data": DataOptions(data=data),
                **changed,
            }
        )
        return explain(from_predictor(load(candidate, allow_fallback=True)), options, Quiet())

    def arguments(self) -> list[object]:
        """Return the options that say what the reference is."""
        return ["--reference", SOURCE, "--weights", self.weights, "--preprocess", self.preprocess,
                "--labels", self.labels, "--data", self.judged]  # fmt: skip

    def faulty(
        self,
        out: Path,
        *,
        target: str = "raspberry-pi",
        change: Callable[[bytes], bytes] | None = None,
        **manifest: Any,
    ) -> Path:
        """Write a copy of a bundle with other fields in its manifest or another file."""
        bundle = Bundle(self.bundle(target))
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        if change is not None:
            path = bundle.manifest.artefacts[0].path
            files[path] = change(files[path])
        made: Manifest = msgspec.structs.replace(bundle.manifest, **manifest)
        write_bundles([Draft(path=out, manifest=made, files=files)])
        return out


@pytest.fixture(scope="session")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signs]:
    root = tmp_path_factory.mktemp("signs")
    preprocess = drawing.PREPROCESS
    toml = root / "preprocess.toml"
    toml.write_text(drawing.PREPROCESS_TOML)
    labels = root / "labels.txt"
    labels.write_text("\n".join(drawing.CLASSES) + "\n")
    images, classes = drawing.draw(800, 0)
    drawing.write(images[:64], classes[:64], root / "calibration")
    drawing.write(*drawing.draw(160, 1), root / "judged")
    sys.path.insert(0, str(HERE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        module = load_model(SOURCE).module
        assert module is not None
        pixels = np.stack([to_pixels(image, preprocess) for image in images])
        settings = Settings(epochs=6, learning_rate=0.1, label_smoothing=0.0)
        signs = Dataset(name="signs", classes=drawing.CLASSES, labels=classes, pixels=pixels)
        batches, steps = in_memory(signs, preprocess, settings)
        Fit(settings=settings, train=batches, steps_per_epoch=steps)(module)
        save_weights(module, root / "signs.safetensors")
        export(
            ExportOptions(
                source=SOURCE, weights=root / "signs.safetensors", preprocess=str(toml),
                targets=("raspberry-pi", "jetson"), out=root / "bundles",
                calib=root / "calibration", labels=labels, keep_graphs=root / "graphs",
            ),
            Quiet(),
        )  # fmt: skip
        yield Signs(
            root=root, weights=root / "signs.safetensors", preprocess=toml, labels=labels,
            judged=root / "judged",
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
        sys.path.remove(str(HERE))
