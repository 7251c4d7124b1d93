"""Widths as data: written down, and a model built again from them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import safetensors.torch
import torch

from edgecls.core.errors import CheckpointError, ModelError
from edgecls.core.preprocess import PRESETS
from edgecls.models import load_model
from edgecls.models.lenet import LeNet5
from edgecls.models.trained import (
    RECORD,
    WEIGHTS,
    DataRecord,
    PruningRecord,
    TrainingRecord,
    write_record,
)
from edgecls.models.widths import replace_tensors, resize, widths_of
from edgecls.models.zoo import build_timm


def narrow() -> LeNet5:
    """LeNet with 4 of its 6 first channels, by hand."""
    module = LeNet5(10)
    state = module.state_dict()
    first, second = (name for name in state if name.endswith("weight") and state[name].ndim == 4)
    bias = first.replace("weight", "bias")
    replace_tensors(
        module, {first: state[first][:4], bias: state[bias][:4], second: state[second][:, :4]}
    )
    return module.eval()


def test_only_what_differs_is_written() -> None:
    found = widths_of(narrow(), LeNet5(10))

    assert set(found.values()) == {(4,), (4, None, None, None), (None, 4, None, None)}


def test_built_again_with_every_size() -> None:
    module, again = narrow(), LeNet5(10)

    resize(again, msgspec.json.decode(msgspec.json.encode(widths_of(module, LeNet5(10)))))
    again.load_state_dict(module.state_dict(), strict=True)

    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(again.eval()(images), module(images))
    kinds = [part for part in again.modules() if isinstance(part, torch.nn.Conv2d)]
    assert (kinds[0].out_channels, kinds[1].in_channels) == (4, 4)


def test_depthwise_convolutions_and_norms_follow() -> None:
    module = build_timm("mobilenetv2_100", None).module
    wanted = {
        name: tuple(16 if size == 32 else None for size in value.shape)
        for name, value in module.state_dict().items()
        if name.startswith(("conv_stem.", "bn1.", "blocks.0.0."))
        and name.endswith(("weight", "bias", "mean", "var"))
        and 32 in value.shape
    }

    resize(module, wanted)

    depthwise = module.get_submodule("blocks.0.0.conv_dw")
    assert isinstance(depthwise, torch.nn.Conv2d)
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (16, 16, 16)
    assert module.get_submodule("bn1").num_features == 16
    with torch.inference_mode():
        assert module.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ({"nothing.weight": (4,)}, "no such tensor"),
        ({"conv1.weight": (4, None)}, "with 2 axes"),
        ({"conv1.weight": (7, None, None, None)}, "at most the architecture's"),
        ({"conv1.weight": (0, None, None, None)}, "1 or more"),
        ({"conv1.weight": (10**12, None, None, None)}, "at most the architecture's"),
    ],
)
def test_widths_of_something_else(widths: dict[str, tuple[int | None, ...]], said: str) -> None:
    module = LeNet5(10)
    first = next(name for name in module.state_dict())
    given = {name.replace("conv1.weight", first): sizes for name, sizes in widths.items()}

    with pytest.raises(ModelError, match=said):
        resize(module, given)


def write(folder: Path, module: torch.nn.Module, widths: dict[str, tuple[int | None, ...]]) -> None:
    record = TrainingRecord(
        architecture="lenet5", labels=tuple("0123456789"), preprocess=PRESETS["mnist"],
        parameters=1, config={}, initial_weights_sha256=None,
        train=DataRecord(name="", images=1, sha256=""), val=None, processes=1, tools={},
        pruned=PruningRecord(
            method="structured", importance="magnitude", goal="params=0.5x", steps=1,
            widths=widths, zeros=False,
        ),
    )  # fmt: skip
    folder.mkdir()
    (folder / RECORD).write_bytes(write_record(record))
    safetensors.torch.save_file(module.state_dict(), folder / WEIGHTS)


def test_a_pruned_folder_is_a_model(tmp_path: Path) -> None:
    module = narrow()
    write(tmp_path / "run", module, widths_of(module, LeNet5(10)))
    images = torch.randn(2, 1, 28, 28)

    for loaded in (
        load_model(str(tmp_path / "run")),
        load_model("lenet5", weights=tmp_path / "run" / WEIGHTS),
    ):
        assert loaded.module is not None
        assert loaded.pruned is not None
        assert torch.equal(loaded.module(images), module(images))
        assert loaded.parameters == sum(value.numel() for value in module.parameters())


def test_widths_that_are_not_the_files_are_refused(tmp_path: Path) -> None:
    module = narrow()
    widths = widths_of(module, LeNet5(10))
    write(
        tmp_path / "run",
        module,
        {name: tuple(s and s - 1 for s in w) for name, w in widths.items()},
    )

    with pytest.raises(CheckpointError, match="shapes do not fit"):
        load_model(str(tmp_path / "run"))


def test_another_tools_record_beside_the_weights(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(json.dumps({"anything": 1}))
    safetensors.torch.save_file(LeNet5(10).state_dict(), tmp_path / WEIGHTS)

    loaded = load_model("lenet5", weights=tmp_path / WEIGHTS)

    assert loaded.pruned is None
