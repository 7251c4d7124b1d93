"""Weights files: safe reading, names that are mended aloud, mismatches that are refused."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecls.core.errors import CheckpointError, UsageError
from edgecls.data.images import list_images
from edgecls.data.stream import stream_pixels
from edgecls.data.truth import match_truth
from edgecls.drift import Comparison, add_logits
from edgecls.models import load_model
from edgecls.models.lenet import LeNet5

State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    torch.manual_seed(3)
    return dict(LeNet5().state_dict())


def loaded_state(path: Path, source: str = "lenet5") -> tuple[State, tuple[str, ...]]:
    loaded = load_model(source, weights=path)
    assert loaded.module is not None
    assert not loaded.random_weights
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(loaded.module.state_dict()), loaded.notes


def same(ours: State, theirs: State) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".tar"])
def test_plain_state_dict(tmp_path: Path, state: State, suffix: str) -> None:
    torch.save(state, tmp_path / f"w{suffix}")

    found, notes = loaded_state(tmp_path / f"w{suffix}")

    assert same(found, state)
    assert notes == ()


def test_legacy_format(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)

    assert same(loaded_state(tmp_path / "w.pth")[0], state)


def test_safetensors(tmp_path: Path, state: State) -> None:
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")

    found, notes = loaded_state(tmp_path / "w.safetensors")

    assert same(found, state)
    assert notes == ()


WRAPPED: dict[str, tuple[Callable[[State], Any], list[str]]] = {
    "state_dict": (lambda s: {"epoch": 3, "state_dict": s}, ["'state_dict'"]),
    "model": (lambda s: {"model": s, "optimizer": {}}, ["'model'"]),
    "model_state_dict": (lambda s: {"model_state_dict": s}, ["'model_state_dict'"]),
    "ema first": (
        lambda s: {"state_dict": {k: v * 0 for k, v in s.items()}, "state_dict_ema": s},
        ["'state_dict_ema'"],
    ),
    "parallel": (
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        ["'state_dict'", "'module.'"],
    ),
    "compiled": (
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        ["'module._orig_mod.'"],
    ),
    "renamed": (
        lambda s: OrderedDict(
            (f"net.{i}.{k.split('.')[1]}", v) for i, (k, v) in enumerate(s.items())
        ),
        ["took all 10 in their order"],
    ),
    "half": (lambda s: {k: v.half() for k, v in s.items()}, ["from float16 to float32"]),
    "parameters": (
        lambda s: {k: torch.nn.Parameter(v) for k, v in s.items()},
        [],
    ),
    "other order": (lambda s: dict(reversed(s.items())), []),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_what_is_done_is_said(tmp_path: Path, state: State, case: str) -> None:
    wrap, expected = WRAPPED[case]
    torch.save(wrap(state), tmp_path / "w.pth")

    found, notes = loaded_state(tmp_path / "w.pth")

    want = {k: v.half().float() for k, v in state.items()} if case == "half" else state
    assert same(found, want)
    assert len(notes) == len(expected)
    assert all(part in note for part, note in zip(expected, notes, strict=True))


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    module = load_model("cifar_resnet20").module
    assert module is not None
    state = {k: torch.rand_like(v) for k, v in module.state_dict().items() if "num_b" not in k}
    torch.save(state, tmp_path / "w.pth")

    found, notes = loaded_state(tmp_path / "w.pth", "cifar_resnet20")

    assert same({k: v for k, v in found.items() if k in state}, state)
    assert notes == ()


class Whole(torch.nn.Module):
    """A module that somebody pickled."""


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing one": (lambda s: dict(list(s.items())[:-1]), r"10 weights, the file 9.*fc3\.bias"),
    "one more": (lambda s: {**s, "extra.weight": torch.ones(1)}, r"file 11.*extra\.weight"),
    "a shape": (lambda s: {**s, "conv2.bias": torch.ones(3)}, r"conv2\.bias \(16,\) != \(3,\)"),
    "two swapped": (
        # Same count and same multiset of shapes, but not in order.
        lambda s: {f"n.{k}": s[k] for k in [*list(s)[2:4], *list(s)[:2], *list(s)[4:]]},
        "does not fit",
    ),
    "kinds swapped": (
        lambda s: {f"n.{k.replace('weight', 'gain')}": v for k, v in s.items()},
        "by name or by order",
    ),
    "a name at another place": (
        # conv1.bias has the right shape in its own place only; a half-renamed file is no proof.
        lambda s: {("fc2.weight" if k == "fc1.weight" else "x." + k): v for k, v in s.items()},
        "does not fit",
    ),
    "another head": (
        lambda s: {**s, "fc3.weight": torch.ones(7, 84), "fc3.bias": torch.ones(7)},
        "has 7 classes, the model has 10; give --num-classes 7",
    ),
    "another head, renamed": (
        lambda s: {
            f"n.{k}": v
            for k, v in {**s, "fc3.weight": torch.ones(7, 84), "fc3.bias": torch.ones(7)}.items()
        },
        "give --num-classes 7",
    ),
    "a NaN": (lambda s: {**s, "fc1.bias": torch.full((120,), float("nan"))}, r"NaN.*fc1\.bias"),
    "an infinity": (lambda s: {**s, "fc1.bias": torch.full((120,), float("inf"))}, "infinity"),
    "a whole module": (lambda _: Whole(), r"Whole.*state_dict"),
    "a list": (lambda s: list(s.values()), "found list"),
    "not only tensors": (lambda s: {**s, "lr": 0.1}, "found a builtins.float at 'lr'"),
    "nothing": (lambda _: {}, "no weights"),
    "integers": (
        lambda s: {k: v.to(torch.int8) for k, v in s.items()},
        r"torch\.int8.*float weights",
    ),
    "sparse": (lambda s: {**s, "fc1.bias": s["fc1.bias"].to_sparse()}, "expected dense"),
    "complex": (lambda s: {**s, "fc1.bias": s["fc1.bias"] * 1j}, "expected dense"),
    "without data": (lambda s: {**s, "fc1.bias": s["fc1.bias"].to("meta")}, "on meta"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path: Path, state: State, case: str) -> None:
    make, expected = REFUSED[case]
    torch.save(make(state), tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=f"(?s){expected}") as error:
        load_model("lenet5", weights=tmp_path / "w.pth")

    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*(quantize|TypedStorage):UserWarning")
def test_quantized_tensors_are_refused(tmp_path: Path, state: State) -> None:
    """torch deprecates its quantized tensors; files with them remain."""
    bias = torch.quantize_per_tensor(state["fc1.bias"], 0.1, 0, torch.qint8)
    torch.save({**state, "fc1.bias": bias}, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=r"fc1\.bias is a torch\.qint8 tensor"):
        load_model("lenet5", weights=tmp_path / "w.pth")


def test_pickled_code_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": Evil()}, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match="run code"):
        load_model("lenet5", weights=tmp_path / "w.pth")

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".tar"])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 not really", b"<html>404</html>", b"\x80\x02}q\x00." * 3]
)
def test_foreign_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"w\."):
        load_model("lenet5", weights=path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keep=st.floats(0, 0.999))
def test_truncated_at_any_byte(tmp_path: Path, suffix: str, keep: float) -> None:
    whole = tmp_path / f"whole{suffix}"
    if not whole.exists():
        state = dict(LeNet5().state_dict())
        if suffix == ".pth":
            torch.save(state, whole)
        else:
            safetensors.torch.save_file(state, whole)
    data = whole.read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(len(data) * keep)])

    with pytest.raises(CheckpointError):
        load_model("lenet5", weights=tmp_path / f"cut{suffix}")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weights file"):
        load_model("lenet5", weights=tmp_path / "w.pth")


def test_format_that_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"\x89HDF")

    with pytest.raises(CheckpointError, match=r"\.safetensors.*found '\.h5'"):
        load_model("lenet5", weights=tmp_path / "w.h5")


def test_weights_for_a_file_with_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its own weights"):
        load_model("x.onnx", weights=tmp_path / "w.pth")


def test_efficientnet_lite0_by_order(edgecls_data: Path) -> None:
    """The real checkpoint has other names than timm's model, in the same order."""
    path = edgecls_data / "weights" / "efficientnet-lite0-57934424.pth"
    loaded = load_model("timm:tf_efficientnet_lite0", weights=path)
    raw = torch.load(path, weights_only=True)
    assert loaded.module is not None
    found = loaded.module.state_dict()

    (note,) = loaded.notes
    assert "took all 247 in their order" in note
    assert "such as timm:efficientnet_lite0, would take them too" in note
    assert torch.equal(found["conv_stem.weight"], raw["_conv_stem.weight"])
    assert torch.equal(found["classifier.bias"], raw["_fc.bias"])
    assert torch.equal(found["blocks.6.0.bn3.running_var"], raw["_blocks.15._bn2.running_var"])
    assert sum(float(v.double().sum()) for k, v in found.items() if "num_b" not in k) == (
        pytest.approx(sum(float(v.double().sum()) for k, v in raw.items() if "num_b" not in k))
    )


@pytest.mark.slow
def test_efficientnet_lite0_on_real_photos(edgecls_data: Path) -> None:
    """432 of 500 right with timm's preprocessing, 485 among the first five."""
    folder = edgecls_data / "imagenet500"
    loaded = load_model(
        "timm:tf_efficientnet_lite0",
        weights=edgecls_data / "weights" / "efficientnet-lite0-57934424.pth",
    )
    assert loaded.module is not None
    assert loaded.preprocess is not None
    images = list_images(folder)
    truth = match_truth(images, num_classes=1000, truth=folder / "labels.json")
    assert truth is not None
    comparison = Comparison()
    for batch in stream_pixels(images, loaded.preprocess, batch=25):
        with torch.inference_mode():
            logits = loaded.module(torch.from_numpy(loaded.preprocess.normalize(batch.stack())))
        names = [image.name for image in batch.images]
        add_logits(comparison, names, logits.numpy(), logits.numpy(), truth.of(batch.images))
    metrics = comparison.result()

    assert metrics.images == 500
    # One photo, where two classes are as good as equal on another machine.
    assert metrics.graded is not None
    assert metrics.graded.top1.reference == pytest.approx(86.4, abs=0.21)
    assert metrics.graded.top5.reference == pytest.approx(97.0, abs=0.21)
