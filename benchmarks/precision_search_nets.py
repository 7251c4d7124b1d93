"""The nets of the precision benchmarks: what is quantized, and the images that tune and judge."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import small_nets
import torch
from common import cifar_folder, data_folder, edgecls, split
from safetensors.torch import load_file, save_file

from edgecls.core.progress import Quiet
from edgecls.core.values import Granularity
from edgecls.data.images import ImageFile, list_images
from edgecls.data.labels import read_labels
from edgecls.data.truth import match_truth
from edgecls.workflows.calibrate import (
    CalibrateOptions,
    calibrate,
    calibration_images,
    float_model,
)
from edgecls.workflows.precision.judging import Judging, read_judging
from edgecls.workflows.precision.recipe import State
from edgecls.workflows.precision.source import Source

HERE: Final = Path(__file__).resolve().parent
CALIBRATED_ON: Final = 100


@dataclass(frozen=True)
class Net:
    """A net, and how it is tried.

    Attributes:
        source: The model.
        granularities: Of its weights' scales.
        weights: In the data folder; None for a net that is trained here.
        preprocess: None for the model's own.
        photos: Whether it classifies the photos, not CIFAR.
        apart: Whether its channels are scaled apart.
    """

    source: str
    granularities: tuple[Granularity, ...]
    weights: str | None = None
    preprocess: str | None = None
    photos: bool = False
    apart: bool = False


_TRAINED: Final = str(HERE / "small_nets.toml")
NETS: Final = {
    "mobile_silu": Net("small_nets:mobile_silu", ("per_channel", "per_tensor"), None, _TRAINED),
    "vit": Net("small_nets:vit", ("per_channel", "per_tensor"), None, _TRAINED),
    "mobile_silu, apart": Net("small_nets:mobile_silu", ("per_channel",), None, _TRAINED,
                              apart=True),
    "vit, apart": Net("small_nets:vit", ("per_channel",), None, _TRAINED, apart=True),
    "mobile_relu, apart": Net("small_nets:mobile_relu", ("per_channel",), None, _TRAINED,
                              apart=True),
    "resnet20": Net("cifar_resnet20", ("per_tensor",), "resnet20-12fca82f.th", "cifar10"),
    "lite0": Net("timm:tf_efficientnet_lite0", ("per_tensor",),
                 "efficientnet-lite0-57934424.pth", photos=True),
}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """What a net's conversions are made from and judged on.

    Attributes:
        calibrating: The images that calibrated.
        size: (height, width) of the model's input.
        first: The net as it is, with its ranges.
        tune: The images that choose.
        judged: The images that decided nothing.
    """

    calibrating: Sequence[ImageFile]
    size: tuple[int, int]
    first: State
    tune: Judging
    judged: Judging


def prepare(name: str, seed: int, cache: Path, epochs: int) -> Prepared:
    """Train a net where it has no weights, calibrate it, and split the images by the seed."""
    net, data = NETS[name], data_folder()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if net.photos:
            calib, rest = split(data / "imagenet500", work / "all", CALIBRATED_ON, seed)
            tune, judged = split(rest, work / "rest", 100, seed)
        else:
            calib = cached(data, "dev_train5000", cache)
            tune, judged = split(cached(data, "dev_test1000", cache), work / "halves", 500, seed)
        weights = data / "weights" / net.weights if net.weights else None
        options = CalibrateOptions(
            source=net.source, data=calib, images=CALIBRATED_ON, seed=seed,
            weights=weights or trained(name, seed, calib, cache, epochs),
            preprocess=net.preprocess,
        )  # fmt: skip
        images = calibration_images(options, Quiet())
        model = float_model(options, images, Quiet())
        table = calibrate(
            model.graph, images, preprocess=model.preprocess, size=model.size,
            method="minmax", seed=seed, progress=Quiet(),
        )  # fmt: skip
        labels = read_labels(data / "imagenet_classes.json") if net.photos else None

        def judging(folder: Path) -> Judging:
            every = list_images(folder)
            truth = match_truth(every, num_classes=model.num_classes, labels=labels)
            assert truth is not None
            return read_judging(
                every, model.graph, preprocess=model.preprocess, size=model.size,
                known=frozenset(table.images), truth=truth, option="judged", progress=Quiet(),
            )  # fmt: skip

        return Prepared(
            # Links to them go with the folder.
            calibrating=[replace(image, path=image.path.resolve()) for image in images],
            size=model.size,
            first=State(source=Source(model=model.graph, table=table.ranges(8)), calibration=table),
            tune=judging(tune),
            judged=judging(judged),
        )


def cached(data: Path, part: str, cache: Path) -> Path:
    """Return a part of CIFAR, unpacked once."""
    return cache / part if (cache / part).is_dir() else cifar_folder(data, part, cache)


def trained(name: str, seed: int, train: Path, cache: Path, epochs: int) -> Path:
    """Return a net's weights, learnt once from the 5,000 images."""
    function = NETS[name].source.partition(":")[2]
    weights = cache / f"{function}-{seed}-{epochs}" / "model.safetensors"
    if not weights.exists():
        print(f"training {function}, seed {seed}", file=sys.stderr, flush=True)
        part = weights.parent.with_suffix(".part")  # an interrupted training has weights too
        edgecls(
            "train", NETS[name].source, "--data", train, "--val-share", 0, "--epochs", epochs,
            "--seed", seed, "--optimizer", "adamw", "--threads", 1, "--device", "cpu",
            "--preprocess", NETS[name].preprocess, "-o", part,
        )  # fmt: skip
        part.rename(weights.parent)
    if not NETS[name].apart:
        return weights
    apart = weights.with_name("apart.safetensors")
    if not apart.exists():
        module = getattr(small_nets, function)()
        module.load_state_dict(load_file(weights))
        scale_apart(module.eval(), seed)
        save_file(module.state_dict(), apart)
    return apart


def scale_apart(module: torch.nn.Module, seed: int, largest: float = 32.0) -> None:
    """Scale channels behind normalizations by random factors, and back in what reads them.

    The net computes the same, and has the channels of very different size that long training
    leaves: behind folded batch norms, and behind the layer norms of transformers.
    """
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        before = module(image)
        for norms, readers in seams(module):
            exponent = 2 * torch.rand(len(norms[0].weight), generator=generator) - 1
            factors = largest**exponent
            for norm in norms:
                norm.weight.mul_(factors)
                norm.bias.mul_(factors)
            for weights, axis in readers:
                weights.div_(factors.reshape([-1 if axis == one else 1
                                              for one in range(weights.ndim)]))  # fmt: skip
        assert torch.allclose(module(image), before, atol=1e-3)


def seams(
    module: torch.nn.Module,
) -> Iterator[tuple[list[torch.nn.Module], list[tuple[torch.Tensor, int]]]]:
    """Yield where a factor passes: normalizations, and the weights that read them alone."""
    if isinstance(module, small_nets.VisionTransformer):
        for block in module.blocks:
            yield [block.attend[0]], [(block.attend[1].qkv.weight, 1)]
            yield [block.think[0]], [(block.think[1].weight, 1)]
        return
    blocks = [one for one in module.modules() if isinstance(one, small_nets.Inverted)]
    if isinstance(blocks[0].body[2], torch.nn.ReLU):
        for block in blocks:
            _, first, _, depthwise, second, _, _, project, _ = block.body
            yield [first], [(depthwise.weight, 0)]
            yield [second], [(project.weight, 1)]
        return
    # SiLU lets no factor through: between the blocks, where nothing is activated.
    head = module[3 + len(blocks)]
    readers = [*(block.body[0] for block in blocks), head]
    for place in (1, 3):  # the first block of a width, and one that adds to it
        norms = [blocks[place].body[8], blocks[place + 1].body[8]]
        yield norms, [(readers[place + 1].weight, 1), (readers[place + 2].weight, 1)]
