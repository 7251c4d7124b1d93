"""Parameters, multiply-accumulates and memory, against published and hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgecls.core.errors import ModelError
from edgecls.core.torchvision_ops import import_torchvision
from edgecls.models.catalog import FAMILIES, describe, find_models
from edgecls.models.cost import activation_bytes, model_cost


@pytest.mark.parametrize(
    "name", ["alexnet", "vgg16", "resnet50", "mobilenet_v2", "efficientnet_b0", "vit_b_16"]
)
def test_costs_are_those_that_torchvision_publishes(name: str) -> None:
    """Its weights' metadata, in 10^9 multiply-accumulates with three decimals."""
    published = import_torchvision().models.get_model_weights(name).DEFAULT.meta

    found = describe(f"torchvision:{name}").cost

    assert found.parameters == published["num_params"]
    assert found.macs / 1e9 == pytest.approx(published["_ops"], abs=6e-4)


def test_lenet_by_hand() -> None:
    """LeCun et al. 1998: layer by layer, outputs times kernel."""
    convolutions = 6 * 28 * 28 * 25 + 16 * 10 * 10 * 6 * 25
    products = 400 * 120 + 120 * 84 + 84 * 10

    found = describe("lenet5")

    assert (found.cost.parameters, found.cost.macs) == (61_706, convolutions + products)
    assert (found.family, found.input_size, found.num_classes) == ("LeNet", (1, 28, 28), 10)


def test_one_matrix_product_keeps_its_input_and_relu_its_output() -> None:
    with torch.device("meta"):
        module = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)
        )

    # The images, 12 numbers, are kept for the first product; ReLU's output, 5, serves both others.
    assert activation_bytes(module, (3, 2, 2)) == (12 + 5) * 4


def test_describing_takes_no_memory_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()

    describe("torchvision:vgg16")

    assert torch.equal(torch.get_rng_state(), before)


def test_every_family_can_be_built() -> None:
    for names in FAMILIES.values():
        entry = describe(names[0])

        assert entry.cost.macs > entry.cost.parameters * 0.5
        assert np.prod(entry.input_size) > 0


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("cifar", ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56")),
        ("timm:mobilenetv4_conv_s*", ("timm:mobilenetv4_conv_small", )),
        ("alexnet", ("torchvision:alexnet",)),
        ("vgg1?", ("timm:vgg11", "timm:vgg13", "timm:vgg16", "timm:vgg19", "torchvision:vgg11",
                   "torchvision:vgg13", "torchvision:vgg16", "torchvision:vgg19")),
    ],
)  # fmt: skip
def test_patterns(pattern: str, expected: tuple[str, ...]) -> None:
    found = find_models(pattern)

    assert set(expected) <= set(found)
    assert len(found) < 10


def test_nothing_matches() -> None:
    with pytest.raises(ModelError, match=r"did you mean .*resnet50"):
        find_models("resnet5o")


def test_another_input_than_the_model_takes() -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(7, 2)

    with pytest.raises(ModelError, match="does not run on an input of"):
        model_cost(module, (3, 8, 8))
