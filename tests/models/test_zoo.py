"""Architectures: what they bring, what they refuse, real weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgecls.core.errors import CheckpointError, ModelError, UsageError
from edgecls.core.preprocess import PRESETS, Preprocess
from edgecls.core.torchvision_ops import import_timm, import_torchvision
from edgecls.data.images import list_images
from edgecls.models import load_model
from edgecls.models.zoo import _timm_preprocess, _torchvision_preprocess
from edgecls.runtimes.preprocess import to_pixels


@pytest.mark.parametrize(
    ("source", "size", "parameters", "preset"),
    [
        ("lenet5", (1, 28, 28), 61_706, "mnist"),
        # He et al. 2015, table 6: 0.27, 0.46, 0.66 and 0.85 million.
        ("cifar_resnet20", (3, 32, 32), 269_722, "cifar10"),
        ("cifar_resnet32", (3, 32, 32), 464_154, "cifar10"),
        ("cifar_resnet44", (3, 32, 32), 658_586, "cifar10"),
        ("cifar_resnet56", (3, 32, 32), 853_018, "cifar10"),
    ],
)
def test_own_architectures(
    source: str, size: tuple[int, int, int], parameters: int, preset: str
) -> None:
    loaded = load_model(source, num_classes=None)

    assert loaded.module is not None
    assert loaded.onnx is None
    assert not loaded.module.training
    assert (loaded.input_size, loaded.parameters, loaded.num_classes) == (size, parameters, 10)
    assert loaded.preprocess == PRESETS[preset]
    assert loaded.random_weights
    assert loaded.weights_sha256 is None
    with torch.inference_mode():
        assert loaded.module(torch.zeros(2, *size)).shape == (2, 10)


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = load_model("cifar_resnet20").module
    after = torch.get_rng_state()
    second = load_model("cifar_resnet20").module

    assert first is not None
    assert second is not None
    assert torch.equal(before, after)
    for ours, theirs in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_timm_brings_its_preprocessing() -> None:
    loaded = load_model("timm:tf_efficientnet_lite0")

    half = (0.5, 0.5, 0.5)
    assert loaded.preprocess == Preprocess(resize=256, crop=224, mean=half, std=half)
    assert (loaded.input_size, loaded.num_classes) == ((3, 224, 224), 1000)
    assert loaded.random_weights
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("config", "resize", "crop"),
    [
        ({"crop_pct": 0.95, "crop_mode": "center"}, 235, 224),
        ({"crop_pct": 1.0, "crop_mode": "squash"}, (224, 224), 224),
        ({"crop_pct": 0.9, "crop_mode": "squash"}, (248, 248), 224),
    ],
)
def test_timm_crop_modes(config: dict[str, object], resize: object, crop: object) -> None:
    common = {
        "input_size": (3, 224, 224),
        "interpolation": "bicubic",
        "mean": (0.1, 0.2, 0.3),
        "std": (1.0, 1.0, 1.0),
    }
    preprocess, notes = _timm_preprocess({**common, **config})

    assert preprocess is not None
    assert (preprocess.resize, preprocess.crop) == (resize, crop)
    assert notes == ()


@pytest.mark.parametrize("mode", ["border", "center"])
def test_timm_preprocessing_without_an_equal_is_said_not_guessed(mode: str) -> None:
    preprocess, notes = _timm_preprocess(
        {
            "input_size": (3, 224, 192),
            "interpolation": "bicubic",
            "mean": (0.1, 0.2, 0.3),
            "std": (1.0, 1.0, 1.0),
            "crop_pct": 0.9,
            "crop_mode": mode,
        }
    )

    assert preprocess is None
    assert "give --preprocess" in notes[0]


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_timm_preprocessing_gives_its_pixels(mode: str, tmp_path: Path) -> None:
    """The oracle is timm's own transform on the same image."""
    config = {
        "input_size": (3, 96, 96),
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 0.875,
        "crop_mode": mode,
    }
    pixels = np.random.default_rng(0).integers(0, 256, (20, 25, 3), np.uint8)
    image = Image.fromarray(pixels).resize((250, 200), Image.Resampling.BICUBIC)
    image.save(tmp_path / "image.png")
    expected = import_timm().data.create_transform(**config, is_training=False)(image)
    preprocess, _ = _timm_preprocess(config)

    assert preprocess is not None
    found = preprocess.normalize(to_pixels(tmp_path / "image.png", preprocess)[None])[0]
    assert found.shape == expected.shape
    # One code of 255 in the model's units, for a decoder or rounding of another version.
    assert np.abs(found - expected.numpy()).max() <= 1.01 / 255 / 0.224


def test_timm_preprocessing_on_real_photos(edgecls_data: Path) -> None:
    """Bit for bit timm's own transform, on odd sizes, small and large photos."""
    loaded = load_model("timm:tf_efficientnet_lite0")
    config = import_timm().data.resolve_model_data_config(loaded.module)
    transform = import_timm().data.create_transform(**config, is_training=False)
    photos = list_images(edgecls_data / "imagenet500")[::25]

    assert loaded.preprocess is not None
    for photo in photos:
        with Image.open(photo.path) as image:
            expected = (transform(image.convert("RGB")) * 0.5 + 0.5).mul(255).round().numpy()
        pixels = to_pixels(photo.path, loaded.preprocess)
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), expected, err_msg=photo.name)


def test_every_preprocessing_of_timm_is_known_or_refused_aloud() -> None:
    timm = import_timm()
    refused = []
    for name in timm.list_models():
        config = timm.get_pretrained_cfg(name)
        if config is None or config.input_size[0] != 3:
            continue
        found, notes = _timm_preprocess(timm.data.resolve_data_config({}, config.to_dict()))
        if found is None:
            refused.append(name)
            assert "give --preprocess" in notes[0]
        else:
            assert found.output_size == config.input_size[1:]
            assert found.mean == tuple(config.mean)

    # Where an image is padded to a square, or the input is no square.
    assert 0 < len(refused) < 40


def test_every_classifier_of_torchvision_brings_its_preprocessing() -> None:
    models = import_torchvision().models
    names = models.list_models(module=models)
    for name in names:
        preset = models.get_model_weights(name).DEFAULT.transforms()
        assert _torchvision_preprocess(preset).output_size is not None

    assert len(names) >= 80


def test_a_headless_model_needs_a_number_of_classes() -> None:
    with pytest.raises(ModelError, match="give --num-classes"):
        load_model("timm:vit_small_patch8_224")


def test_timm_head_of_another_size() -> None:
    loaded = load_model("timm:mobilenetv3_small_050", num_classes=7)

    assert loaded.module is not None
    with torch.inference_mode():
        assert loaded.module(torch.zeros(1, 3, 224, 224)).shape == (1, 7)
    assert loaded.num_classes == 7


def test_torchvision_brings_its_preprocessing() -> None:
    loaded = load_model("torchvision:mobilenet_v2")

    assert loaded.preprocess == Preprocess(resize=232, crop=224, interpolation="bilinear")
    assert (loaded.input_size, loaded.num_classes) == ((3, 224, 224), 1000)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inceptions_are_built_for_torchvisions_own_weights(name: str) -> None:
    loaded = load_model(f"torchvision:{name}")

    assert loaded.module is not None
    assert loaded.module.transform_input is True
    assert "transform_input=True" in loaded.notes[0]


FRESH = (
    "from edgecls.core.torchvision_ops import *; import_torchvision(); import_timm()",
    # As a loader's threads do, each for its first image.
    "from concurrent.futures import ThreadPoolExecutor as Pool; import sys, threading;"
    "sys.setswitchinterval(1e-6); start = threading.Barrier(8);"
    "from edgecls.core.torchvision_ops import import_torchvision as load;"
    "found = list(Pool(8).map(lambda _: (start.wait(), load())[1], range(8)));"
    "assert [module.__name__ for module in found] == ['torchvision'] * 8",
)


@pytest.mark.parametrize("code", FRESH, ids=("one thread", "eight threads"))
def test_torchvision_imports_in_a_fresh_process(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("timm:resnet81", "did you mean"),
        ("timm:hf-hub:someone/model", "no classifier"),
        ("timm:resnet18.no_such_tag", "resnet18"),
        ("torchvision:resnet19", "resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no classifier"),
        ("cifar_resnet21", "cifar_resnet20"),
        ("nothing", "timm:NAME"),
        ("no_such_package.module:make", "no module 'no_such_package.module'"),
        ("json:no_such_name", "no_such_name"),
        ("json:dumps", "TypeError"),
        ("os.path:sep", "found str"),
        ("os:getcwd", "found str"),
        ("missing.onnx", "no such file"),
        ("missing.pt2", "no such file"),
    ],
)
def test_a_model_that_is_not_there(source: str, expected: str) -> None:
    with pytest.raises(ModelError, match="(?s).*" + expected.replace(".", r"\.")):
        load_model(source)


def test_number_of_classes_must_be_positive() -> None:
    with pytest.raises(UsageError, match="positive"):
        load_model("lenet5", num_classes=0)


USER_MODULE = """
import torch
def make(num_classes=4): return torch.nn.Linear(12, num_classes)
def broken(): raise OSError("no disk")
def diverged():
    net = torch.nn.Linear(2, 2)
    net.weight.data[0, 0] = float("nan")
    return net
def plain(): return torch.nn.Linear(2, 2)
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "edgecls_test_user_module"
    (tmp_path / f"{name}.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_callable_of_the_current_folder(user_module: str) -> None:
    path = list(sys.path)
    loaded = load_model(f"{user_module}:make", num_classes=5)

    assert loaded.module is not None
    assert not loaded.random_weights
    assert not loaded.module.training
    assert loaded.num_classes == 5
    assert loaded.preprocess is None
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("broken", ModelError, "raised OSError: no disk"),
        ("diverged", CheckpointError, "NaN"),
        ("plain.missing", ModelError, "missing"),
    ],
)
def test_callable_that_fails(
    user_module: str, name: str, error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        load_model(f"{user_module}:{name}")


def test_callable_without_num_classes(user_module: str) -> None:
    with pytest.raises(UsageError, match="takes no num_classes"):
        load_model(f"{user_module}:plain", num_classes=3)


@pytest.mark.parametrize(
    ("source", "file", "least"),
    [
        ("cifar_resnet20", "resnet20-12fca82f.th", 0.914),
        ("cifar_resnet32", "resnet32-d509ac18.th", 0.928),
        pytest.param("cifar_resnet56", "resnet56-4bfd9763.th", 0.926, marks=pytest.mark.slow),
    ],
)
def test_real_cifar_weights(edgecls_data: Path, source: str, file: str, least: float) -> None:
    loaded = load_model(source, weights=edgecls_data / "weights" / file)
    images, answers = cifar_test(edgecls_data)
    assert loaded.module is not None
    assert loaded.preprocess is not None
    inputs = torch.from_numpy(loaded.preprocess.normalize(images))

    with torch.inference_mode():
        logits = torch.cat([loaded.module(part) for part in inputs.split(250)])

    assert len(answers) == 1000
    assert np.mean(logits.argmax(1).numpy() == answers) == pytest.approx(least, abs=1e-9)
    assert any("'state_dict'" in note for note in loaded.notes)
    assert any("'module.'" in note for note in loaded.notes)
    assert not loaded.random_weights


def cifar_test(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images (1000, 32, 32, 3) and classes from the sprite."""
    labels = json.loads((data / "cifar10" / "labels.json").read_text())["dev_test1000"]["y"]
    sprite = np.asarray(Image.open(data / "cifar10" / "dev_test1000.webp").convert("RGB"))
    rows, columns = sprite.shape[0] // 32, sprite.shape[1] // 32
    tiles = sprite.reshape(rows, 32, columns, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    return tiles[: len(labels)], np.asarray(labels)
