from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecls.core.errors import DataError
from edgecls.data.dataset import Dataset, open_dataset, open_splits


def put(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shade = sum(name.encode()) % 256
        Image.new("RGB", (4, 3), (shade, 0, 0)).save(file)


def labelled(found: Dataset) -> dict[str, str]:
    assert found.files is not None
    return {
        image.name: found.classes[label]
        for image, label in zip(found.files, found.labels.tolist(), strict=True)
    }


def test_a_folder_per_class_in_the_order_of_names(tmp_path: Path) -> None:
    put(tmp_path, "dog/1.png", "cat/2.png", "cat/deep/3.png", ".hidden/4.png", "dog/.5.png")

    found = open_dataset(tmp_path)

    assert found.classes == ("cat", "dog")
    assert labelled(found) == {"cat/2.png": "cat", "cat/deep/3.png": "cat", "dog/1.png": "dog"}
    assert found.labels.dtype == np.int64
    assert found.counts.tolist() == [2, 1]
    assert found.folder == tmp_path


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["0_b", "1_a", "2_c"], ("b", "a", "c")),
        ([f"{i}_x{i}" for i in range(11)], tuple(f"x{i}" for i in range(11))),
        ([str(i) for i in range(11)], tuple(str(i) for i in range(11))),
        (["0_a", "2_b"], ("0_a", "2_b")),
        (["0_a", "1_a"], ("0_a", "1_a")),
        (["0_a", "b"], ("0_a", "b")),
    ],
)
def test_an_index_before_the_name_is_the_class(
    tmp_path: Path, folders: list[str], classes: tuple[str, ...]
) -> None:
    put(tmp_path, *(f"{folder}/x.png" for folder in folders))

    assert open_dataset(tmp_path).classes == classes


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/.hidden.png")

    with pytest.raises(DataError, match=r"class folder without images: .*dog: no images"):
        open_dataset(tmp_path)


def test_given_classes_have_the_order(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/2.png")

    found = open_dataset(tmp_path, classes=("dog", "bird", "cat"))

    assert found.labels.tolist() == [2, 0]
    with pytest.raises(DataError, match="dog: no class of that name; expected cat"):
        open_dataset(tmp_path, classes=("cat",))


def test_some_of_the_numbered_folders_are_the_classes_that_both_name(tmp_path: Path) -> None:
    classes = ("air", "car", "bird", "cat")
    put(tmp_path, "1_car/a.png", "3_cat/b.png")
    assert labelled(open_dataset(tmp_path, classes=classes)) == {
        "1_car/a.png": "car",
        "3_cat/b.png": "cat",
    }

    put(tmp_path, "4_bird/c.png")
    with pytest.raises(DataError, match="4_bird: no class of that name"):
        open_dataset(tmp_path, classes=classes)


@pytest.mark.parametrize("suffix", ["csv", "json"])
@pytest.mark.parametrize("key", ["label", "class_index"])
def test_a_table_beside_loose_images(tmp_path: Path, suffix: str, key: str) -> None:
    put(tmp_path, "a.png", "b.png", "sub/c.png")
    values = {"a.png": 2, "b.png": 0, "sub/c.png": 2}
    if suffix == "json":
        text = json.dumps([{"file": name, key: value} for name, value in values.items()])
    else:
        text = f"file,{key}\n" + "".join(f"{name},{value}\n" for name, value in values.items())
    (tmp_path / f"labels.{suffix}").write_text(text)

    found = open_dataset(tmp_path)

    shown = "class {}" if key == "class_index" else "{}"
    assert labelled(found) == {name: shown.format(value) for name, value in values.items()}
    assert len(found.classes) == (3 if key == "class_index" else 2)
    assert labelled(open_dataset(tmp_path / f"labels.{suffix}")) == labelled(found)


def test_names_of_classes_come_from_the_table(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("file,class_index,name\na.png,1,crane\nb.png,2,crane\n")

    assert open_dataset(tmp_path).classes == ("class 0", "crane (1)", "crane (2)")


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("file,label\na.png,x\n", "1 of 2 images have no entry, first 'b.png'"),
        ("file,label\na.png,x\nb.png,y\nc.png,y\n", "1 of 3 files are not below"),
        ("file,label\na.png,x\na.png,y\nb.png,y\n", "'a.png' has two labels"),
        ("file,label\na.png,\nb.png,y\n", "'a.png' has no label"),
        ("file,class_index\na.png,1\nb.png,-1\n", "line 3: found 'b.png' and '-1'"),
        ("file,class_index,name\na.png,1,x\nb.png,1,y\n", "class 1 is 'x' and 'y'"),
        ("name,label\na.png,x\n", "found the columns name, label"),
        ("file,label\n", "no entries"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, table: str, match: str) -> None:
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text(table)

    with pytest.raises(DataError, match=match):
        open_dataset(tmp_path)


def test_two_tables_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,x\n")
    (tmp_path / "labels.json").write_text('[{"file": "a.png", "label": "y"}]')

    with pytest.raises(DataError, match="name the one that counts by its path"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, labels=tmp_path / "labels.json").classes == ("y",)


def test_a_table_that_contradicts_the_folders_is_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/2.png")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\ncat/1.png,x\ndog/2.png,y\n")
    assert open_dataset(tmp_path).classes == ("cat", "dog")

    table.write_text("file,label\ncat/1.png,x\ndog/2.png,x\n")

    with pytest.raises(DataError, match="two answers to what the classes are"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, labels=table).classes == ("x",)
    assert open_dataset(table).table == table


def test_train_and_val_folders_share_their_classes(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.png", "train/dog/2.png", "train/emu/3.png", "val/dog/4.png")

    found = open_splits(tmp_path)

    assert list(found) == ["train", "val"]
    assert found["val"].classes == ("cat", "dog", "emu")
    assert found["val"].labels.tolist() == [1]
    assert found["val"].folder == tmp_path / "val"
    with pytest.raises(DataError, match="no 'test': its splits are: train, val"):
        open_dataset(tmp_path, split="test")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([], "no images"),
        (["a.png"], "images without classes"),
        (["a.png", "cat/b.png"], "some images stand in class folders, some do not"),
    ],
)
def test_folders_without_classes_are_refused(
    tmp_path: Path, names: Iterable[str], match: str
) -> None:
    put(tmp_path, *names)

    with pytest.raises(DataError, match=match):
        open_dataset(tmp_path)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")

    with pytest.raises(DataError, match="expected a folder, a table"):
        open_dataset(tmp_path / "x.txt")
    with pytest.raises(DataError, match="found no file or folder"):
        open_dataset(tmp_path / "absent")


def test_a_subset_keeps_what_belongs_to_its_images(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/2.png", "dog/3.png")
    found = open_dataset(tmp_path)

    part = found.subset([2, 0])

    assert labelled(part) == {"dog/3.png": "dog", "cat/1.png": "cat"}
    assert part.digest(0) == found.digest(2)
    assert part.classes == found.classes
    assert len(part) == 2


def test_real_photos_have_the_labels_of_their_table(edgecls_data: Path) -> None:
    folder = edgecls_data / "imagenet500"

    by_table = open_dataset(folder, labels=folder / "labels.json")
    by_folder = open_dataset(folder)

    assert by_table.labels.tolist() != by_folder.labels.tolist()
    assert sorted(by_table.labels.tolist()) == list(range(0, 1000, 2))
    assert sorted(by_folder.labels.tolist()) == list(range(500))


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("file,label\nimages/1.png,x\nimages/2.png,y\n", "'x' and 'y' to images of the folder"),
        ("file,label\n1.png,x\n2.png,y\n", "lists none of the images below"),
    ],
)
def test_a_table_of_images_in_one_folder_is_not_passed_over(
    tmp_path: Path, table: str, match: str
) -> None:
    put(tmp_path, "images/1.png", "images/2.png")
    (tmp_path / "labels.csv").write_text(table)

    with pytest.raises(DataError, match=match):
        open_dataset(tmp_path)


def test_a_part_alone_is_no_class(tmp_path: Path) -> None:
    put(tmp_path, "Train/cat/1.png", "Train/dog/2.png")

    found = open_splits(tmp_path)

    assert list(found) == ["train"]
    assert found["train"].classes == ("cat", "dog")


def test_parts_beside_something_else_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.png", "val/cat/2.png", "meta/3.png")

    with pytest.raises(DataError, match=r"train and val look like parts.*'meta' does not"):
        open_splits(tmp_path)


def test_a_class_may_be_called_like_a_part(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "bus/2.png")

    assert open_dataset(tmp_path).classes == ("bus", "train")
