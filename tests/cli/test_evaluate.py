"""``edgecls evaluate`` on every kind of model and every kind of data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from edgecls.data.dataset import Dataset, open_dataset
from edgecls.data.idx import write_idx

if TYPE_CHECKING:
    from ..conftest import Command, Digits


@pytest.fixture(scope="module")
def some(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight of the judged digits of each class."""
    folder = tmp_path_factory.mktemp("some")
    for place in sorted(digits.judged.iterdir()):
        (folder / place.name).mkdir()
        for file in sorted(place.iterdir())[:8]:
            shutil.copy(file, folder / place.name)
    return folder


def model(digits: Digits) -> list[object]:
    return ["lenet5", "--weights", digits.weights, "--preprocess", "mnist"]


def report(command: Command, *arguments: object) -> dict[str, Any]:
    done = command("evaluate", *arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def write_digits(some: Path, folder: Path) -> Dataset:
    """Write the digits as MNIST's files."""
    dataset = open_dataset(some)
    assert dataset.files is not None
    images = np.stack([np.asarray(Image.open(file.path)) for file in dataset.files])
    (folder / "t10k-images-idx3-ubyte").write_bytes(write_idx(images))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(write_idx(dataset.labels.astype(np.uint8)))
    return dataset


def test_every_format_of_the_same_images_gives_the_same_numbers(
    edgecls: Command, digits: Digits, some: Path, tmp_path: Path
) -> None:
    dataset = write_digits(some, tmp_path)
    assert dataset.files is not None
    table = tmp_path / "truth.csv"
    rows = [
        f"{file.name},{label}" for file, label in zip(dataset.files, dataset.labels, strict=True)
    ]
    table.write_text("\n".join(["file,class_index", *rows]))
    parts = tmp_path / "parts"
    shutil.copytree(some, parts / "train")
    shutil.copytree(some, parts / "val")
    loose = tmp_path / "loose"
    loose.mkdir()
    for file in dataset.files:
        shutil.copy(file.path, loose / file.name.replace("/", "-"))
    named = parts / "train" / "named.csv"
    named.write_text("\n".join(["file,class_index", *rows]))
    renamed = [row.replace("/", "-") for row in rows]
    (loose / "labels.csv").write_text("\n".join(["file,label", *renamed]))

    folder = report(edgecls, *model(digits), "--data", some)
    others = [
        report(edgecls, *model(digits), "--data", tmp_path / "t10k-images-idx3-ubyte"),
        report(edgecls, *model(digits), "--data", some, "--truth", table),
        report(edgecls, *model(digits), "--data", parts, "--split", "val"),
        report(edgecls, *model(digits), "--data", loose),
        report(edgecls, *model(digits), "--data", named),
    ]

    assert folder["images"] == 80
    assert folder["top1"] == pytest.approx(100 * (80 - folder["wrong"]) / 80)
    for found in others:
        for key in ("images", "top1", "top1_interval", "top5", "f1", "ece", "confusion", "wrong"):
            assert found[key] == folder[key], key


def test_the_numbers_are_the_models(edgecls: Command, digits: Digits, some: Path) -> None:
    import torch

    from edgecls.core.preprocess import PRESETS
    from edgecls.models import load_model

    net = load_model("lenet5", weights=digits.weights).module
    dataset = open_dataset(some)
    assert dataset.files is not None
    codes = np.stack([np.asarray(Image.open(file.path)) for file in dataset.files])[..., None]
    with torch.inference_mode():
        logits = net(torch.from_numpy(PRESETS["mnist"].normalize(codes)))
    right = (logits.argmax(1).numpy() == dataset.labels).mean()

    found = report(edgecls, *model(digits), "--data", some)

    assert found["top1"] == pytest.approx(100 * right)
    assert found["per_class"][3]["name"].startswith("3")


def test_a_bundle_and_its_recording(
    edgecls: Command, digits: Digits, some: Path, tmp_path: Path
) -> None:
    bundle, logits = digits.bundle("raspberry-pi"), tmp_path / "pi.logits"
    done = edgecls("predict", bundle, "--data", some, "--save-logits", logits)
    assert done.code == 0, done.err

    live = report(edgecls, bundle, "--data", some)
    recorded = report(edgecls, logits, "--data", some)
    alone = report(edgecls, logits)

    assert live["backend"] == "litert"
    for found in (recorded, alone):
        assert found["confusion"] == live["confusion"]
        assert found["ece"] == live["ece"]
    done = edgecls("evaluate", bundle, "--data", some, "--weights", digits.weights)
    assert done.code == 2
    assert "brings its own weights" in done.err


def test_every_report_is_written(
    edgecls: Command, digits: Digits, some: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    names = [tmp_path / f"found.{suffix}" for suffix in ("json", "md", "html")]
    options = [argument for name in names for argument in ("--report", name)]

    done = edgecls(
        "evaluate", *model(digits), "--data", some, *options, "--confusion", tmp_path / "c.png"
    )

    assert done.code == 0, done.err
    assert "95 % interval" in done.out
    found = json.loads(names[0].read_text())
    assert f"{found['top1']:.2f} %" in done.out
    assert f"{found['top1']:.2f} %" in names[1].read_text()
    page = names[2].read_text()
    assert f"Top-1 {found['top1']:.2f} %" in page
    assert page.count("<img") == min(found["wrong"], 24)
    with Image.open(tmp_path / "c.png") as plot:
        assert min(plot.size) > 300


def test_images_in_memory_are_shown_too(
    edgecls: Command, digits: Digits, some: Path, tmp_path: Path
) -> None:
    write_digits(some, tmp_path)
    page = tmp_path / "x.html"

    done = edgecls("evaluate", *model(digits), "--data", tmp_path, "--report", page)

    assert done.code == 0, done.err
    assert "class indices, taken for the model's outputs" in done.err
    assert page.read_text().count("data:image/png;base64,") > 0


def test_unreadable_images_are_counted(
    edgecls: Command, digits: Digits, some: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(some, data)
    place = sorted(data.iterdir())[0]
    (place / "bad.png").write_bytes(b"nothing")

    done = edgecls("evaluate", *model(digits), "--data", data, "--json")
    assert done.code == 4
    assert json.loads(done.out)["images"] == 80
    assert "1 of 81 images cannot be read, more than 1 %" in done.err

    done = edgecls("evaluate", *model(digits), "--data", data, "--max-unreadable", 2)
    assert done.code == 0, done.err
    assert "bad.png: not an image" in done.out

    labels = data / "labels.csv"
    for index, file in enumerate(sorted(data.glob("*/*"))):
        file.rename(data / f"{index}.png")
    labels.write_text("file,label\n" + "".join(f"{i}.png,{i % 10}\n" for i in range(81)))
    shutil.rmtree(place)
    done = edgecls("evaluate", *model(digits), "--data", data, "--json")
    assert done.code == 4
    assert len(json.loads(done.out)["skipped"]) == 1


def test_names_come_from_the_labels(
    edgecls: Command, digits: Digits, some: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("\n".join(f"digit {index}" for index in range(10)))

    found = report(edgecls, *model(digits), "--data", some, "--labels", labels)

    assert [score["name"] for score in found["per_class"]][:2] == ["digit 0", "digit 1"]
    labels.write_text("one\ntwo")
    done = edgecls("evaluate", *model(digits), "--data", some, "--labels", labels)
    assert done.code == 4
    assert "name 2 classes, the model has 10 outputs" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "give the images with --data DIR"),
        (["--data", "{empty}"], 4, "no images"),
        (["--data", "{loose}"], 4, "images without classes"),
        (["--data", "{some}", "--split", "val"], 4, "no 'val'"),
        (["--data", "{some}", "--report", "x.pdf"], 2, "expected a name that ends in"),
        (["--data", "{some}", "--confusion", "x.jpg"], 2, "ends in .png"),
        (["--split", "val"], 2, "--split names a part"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    edgecls: Command, digits: Digits, some: Path, tmp_path: Path, arguments: list[str], code: int,
    said: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    (tmp_path / "loose").mkdir()
    shutil.copy(next(some.rglob("*.png")), tmp_path / "loose" / "a.png")
    places = {"empty": tmp_path / "empty", "loose": tmp_path / "loose", "some": some}

    done = edgecls("evaluate", *model(digits), *(a.format(**places) for a in arguments))

    assert done.code == code, done.err
    assert said in done.err


def test_the_json_is_what_the_schema_says(edgecls: Command, digits: Digits, some: Path) -> None:
    import jsonschema

    from edgecls.reports.schema import schemas

    schema = json.loads(schemas()["evaluation.schema.json"])
    found = report(edgecls, *model(digits), "--data", some)
    jsonschema.Draft202012Validator(schema).validate(found)


@pytest.mark.slow
def test_cifar_resnet_20_has_its_known_accuracy(
    edgecls: Command, edgecls_data: Path, tmp_path: Path
) -> None:
    """91.4 % on these images, from the folder and from CIFAR's own binary form of it."""
    sprites = np.asarray(Image.open(edgecls_data / "cifar10" / "dev_test1000.webp").convert("RGB"))
    rows, columns = sprites.shape[0] // 32, sprites.shape[1] // 32
    images = sprites.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3072)
    labels = json.loads((edgecls_data / "cifar10" / "labels.json").read_text())["dev_test1000"]["y"]
    records = [bytes([label]) + row.tobytes() for label, row in zip(labels, images, strict=True)]
    (tmp_path / "test_batch.bin").write_bytes(b"".join(records))

    found = report(
        edgecls, "cifar_resnet20", "--weights", edgecls_data / "weights" / "resnet20-12fca82f.th",
        "--preprocess", "cifar10", "--data", tmp_path,
    )  # fmt: skip

    assert found["top1"] == pytest.approx(91.4)
    assert found["per_class"][3]["name"] == "cat"
