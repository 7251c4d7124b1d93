"""Quantization-aware training's parts on real graphs: the teacher, and families of networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement.learned import place_learned
from edgecls.compress.distillation import Lesson
from edgecls.compress.quantized_module import QuantizedModule
from edgecls.core.progress import Quiet
from edgecls.core.values import relative_difference
from edgecls.data.augment import resolve_augment
from edgecls.export.passes import for_one_image
from edgecls.models import load_model
from edgecls.targets import get_target
from edgecls.training import Fit, Settings
from edgecls.training.distributed import Group
from edgecls.workflows.graph import checked_graph, resolve_input, run_onnx
from edgecls.workflows.precision.source import Source
from edgecls.workflows.qat import _taught
from edgecls.workflows.qat_setup import QatOptions, prepare_qat
from edgecls.workflows.samples import synthetic_samples
from edgecls.workflows.timing import Stages
from edgecls.workflows.train import TrainOptions
from edgecls.workflows.training_data import DataChoice

from .test_families import alive

if TYPE_CHECKING:
    from ..conftest import Digits


def test_the_teacher_is_the_float_model(digits: Digits, tmp_path: Path) -> None:
    """What it teaches stays so while the module that learns moves."""
    train = TrainOptions(
        model="lenet5", weights=digits.weights, out=tmp_path / "out",
        data=DataChoice(path=digits.train, augment=resolve_augment("none")),
        settings=Settings(epochs=1),
    )  # fmt: skip
    ready = prepare_qat(
        QatOptions(train=train, targets=("raspberry-pi",), calib_images=20), Group(), Quiet()
    )
    images = ready.samples
    training = _taught(
        Fit(settings=train.settings, train=lambda epoch: [(images, np.arange(len(images)))],
            steps_per_epoch=1),
        ready.module, Lesson(alpha=1.0),
    )  # fmt: skip
    with torch.no_grad():
        for value in ready.module.parameters():
            value.mul_(1.5)

    ((seen, _, taught),) = training.train(0)

    assert seen is images
    assert relative_difference(run_onnx(ready.graph.model, images), taught) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("target", ["raspberry-pi", "jetson"])
@pytest.mark.parametrize(
    "source", ["timm:mobilenetv3_small_100", "timm:deit_tiny_patch16_224", "timm:convnext_atto"]
)
def test_a_family_is_the_graph_and_has_its_scales(source: str, target: str, tmp_path: Path) -> None:
    loaded = load_model(source, weights=alive(source, tmp_path / "weights.pth"))
    preprocess, size = resolve_input(loaded, None)
    tensors = preprocess.normalize(synthetic_samples(preprocess, size, 0).pixels)
    graph = checked_graph(
        loaded, preprocess=preprocess, size=size, tensors=tensors, stages=Stages(Quiet())
    ).model
    items = [(f"{i:064x}", tensors[i : i + 1]) for i in range(len(tensors))]
    table = collect_ranges(graph, items, method="minmax", seed=0)
    scheme = get_target(target).scheme
    module = QuantizedModule(place_learned(for_one_image(graph), table, scheme)).eval()
    with torch.no_grad():
        module.logarithms.add_(0.1 * torch.randn(len(module.logarithms)))

    ranges = msgspec.structs.replace(table, ranges={**table.ranges, **module.ranges()})
    placed = Source(model=graph, table=ranges).quantize(scheme).model

    constants = {t.name: numpy_helper.to_array(t) for t in placed.graph.initializer}
    scales = {float(constants[n.input[1]]) for n in pairs(placed)}
    assert set(module.scales().tolist()) <= scales
    module.quantizes = False
    with torch.inference_mode():
        found = module(torch.from_numpy(tensors)).numpy()
    assert relative_difference(run_onnx(graph, tensors), found) < 1e-4


def pairs(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
