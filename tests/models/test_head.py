"""A new head for other classes, and what does not learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from edgecls.core.errors import CheckpointError, UsageError
from edgecls.models import load_model
from edgecls.models.head import freeze, head_layers, train_mode
from edgecls.models.lenet import LeNet5


def saved(path: Path, module: torch.nn.Module, without: str = "none.") -> Path:
    tensors = {n: t for n, t in module.state_dict().items() if not n.startswith(without)}
    safetensors.torch.save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("source", "classes", "heads"),
    [
        ("lenet5", 10, ("fc3",)),
        ("cifar_resnet20", 10, ("linear",)),
        ("timm:mobilenetv3_small_050", 7, ("classifier",)),
        ("timm:deit_tiny_distilled_patch16_224", 7, ("head", "head_dist")),
        ("torchvision:squeezenet1_1", 7, ("classifier.1",)),
    ],
)
def test_heads(source: str, classes: int, heads: tuple[str, ...]) -> None:
    module = load_model(source, num_classes=classes).module

    assert module is not None
    assert head_layers(module, classes) == heads


def test_a_new_head_keeps_all_other_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = LeNet5(26)
    file = saved(tmp_path / "letters.safetensors", trained)

    loaded = load_model("lenet5", weights=file, num_classes=10, new_head=True)

    assert loaded.module is not None
    state = loaded.module.state_dict()
    assert all(torch.equal(state[n], t) for n, t in trained.state_dict().items() if "fc3" not in n)
    assert torch.equal(state["fc3.weight"], load_model("lenet5").module.state_dict()["fc3.weight"])  # type: ignore[union-attr]
    assert any("fc3.weight, fc3.bias" in note and "26 classes" in note for note in loaded.notes)


def test_a_file_without_a_head(tmp_path: Path) -> None:
    file = saved(tmp_path / "backbone.safetensors", LeNet5(), without="fc3.")

    loaded = load_model("lenet5", weights=file, num_classes=3, new_head=True)

    assert any("the file has none" in note for note in loaded.notes)
    with pytest.raises(CheckpointError, match="missing: fc3"):
        load_model("lenet5", weights=file, num_classes=3)


def test_a_head_of_the_same_size_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = LeNet5()
    file = saved(tmp_path / "w.safetensors", trained)

    loaded = load_model("lenet5", weights=file, num_classes=10, new_head=True)

    assert loaded.module is not None
    assert torch.equal(loaded.module.fc3.weight, trained.fc3.weight)
    assert loaded.notes == ()


def test_another_architecture_is_refused_with_a_new_head_too(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.safetensors", LeNet5(5))

    with pytest.raises(CheckpointError, match="does not fit"):
        load_model("cifar_resnet20", weights=file, num_classes=10, new_head=True)


def test_freezing_the_backbone_leaves_the_head() -> None:
    module = LeNet5()

    frozen = freeze(module, "backbone", 10)

    learning = {name for name, value in module.named_parameters() if value.requires_grad}
    assert learning == {"fc3.weight", "fc3.bias"}
    assert set(frozen) | learning == {name for name, _ in module.named_parameters()}


@pytest.mark.parametrize(("pattern", "count"), [("conv?", 4), ("conv1", 2), ("*.bias", 5)])
def test_freezing_by_pattern(pattern: str, count: int) -> None:
    assert len(freeze(LeNet5(), pattern, 10)) == count


@pytest.mark.parametrize(("pattern", "found"), [("layer1", "none"), ("*", "all")])
def test_freezing_nothing_or_all(pattern: str, found: str) -> None:
    with pytest.raises(UsageError, match=f"{found} of the model's 10 parameters"):
        freeze(LeNet5(), pattern, 10)


def test_frozen_statistics_do_not_drift() -> None:
    module = load_model("cifar_resnet20").module
    assert module is not None
    freeze(module, "backbone", 10)
    before = {name: value.clone() for name, value in module.named_buffers()}

    train_mode(module)
    module(torch.randn(4, 3, 32, 32))

    assert all(torch.equal(before[name], value) for name, value in module.named_buffers())
