"""Labels and ground truth: what matches, what is assumed aloud, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecls.core.errors import DataError
from edgecls.data.images import ImageFile, list_images
from edgecls.data.labels import Labels, read_labels
from edgecls.data.truth import match_classes, match_truth, read_truth


def write(path: Path, content: object) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


ENTRIES = [
    {"class_index": 1, "name": "crane", "synset": "n02"},
    {"class_index": 0, "name": "cat, tabby", "synset": "n01", "extra": 1},
    {"class_index": 2, "name": "crane", "synset": "n03"},
]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("l.txt", "cat\ndog\n", Labels(names=("cat", "dog"))),
        ("l.txt", b"\xef\xbb\xbfcat\r\n dog \r\n\r\n", Labels(names=("cat", "dog"))),
        ("l.txt", "猫\nkrähe", Labels(names=("猫", "krähe"))),
        ("l.txt", "same\nsame\n", Labels(names=("same", "same"))),
        ("l.names", "cat\u2028x\ndog", Labels(names=("cat\u2028x", "dog"))),
        ("l.json", ["cat", "dog"], Labels(names=("cat", "dog"))),
        (
            "l.json",
            ENTRIES,
            Labels(names=("cat, tabby", "crane", "crane"), synsets=("n01", "n02", "n03")),
        ),
        ("l.JSON", [{"class_index": 0, "name": "only"}], Labels(names=("only",))),
    ],
)
def test_labels(tmp_path: Path, file: str, content: object, expected: Labels) -> None:
    assert read_labels(write(tmp_path / file, content)) == expected


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("l.txt", "", "no class names"),
        ("l.txt", "\n\n", "no class names"),
        ("l.txt", "cat\n\ndog\n", "name of class 1 is empty"),
        ("l.txt", b"c\xe4t\n", "not a readable labels file"),
        ("l.json", "[]", "no class names"),
        ("l.json", '["cat", " "]', "name of class 1 is empty"),
        ("l.json", "{", r"l\.json"),
        ("l.json", {"0": "cat"}, "Expected `array`"),
        ("l.json", ["cat", ENTRIES[0]], "found both"),
        ("l.json", [ENTRIES[0], ENTRIES[2]], "0..1, each once; found 1 where 0"),
        ("l.json", [ENTRIES[1], ENTRIES[1]], "found 0 where 1"),
        ("l.json", [{"class_index": -1, "name": "x"}], "found -1"),
        ("l.json", [{"class_index": 0}], "name"),
        ("l.json", [{"class_index": 0.5, "name": "x"}], "int"),
        ("l.json", [*ENTRIES, {"class_index": 3, "name": "x"}], "1 of its classes have no synset"),
        ("l.json", [ENTRIES[1], {**ENTRIES[0], "synset": "n01"}], "the same synset"),
    ],
)
def test_labels_that_cannot_be_used(
    tmp_path: Path, file: str, content: object, expected: str
) -> None:
    with pytest.raises(DataError, match=expected) as error:
        read_labels(write(tmp_path / file, content))

    assert file in str(error.value)


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable labels file"):
        read_labels(tmp_path / "l.txt")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (
            "t.json",
            [
                {"file": "a/1.png", "class_index": 3, "more": 0},
                {"file": "2.png", "class_index": 0},
            ],
        ),
        ("t.csv", "file,class_index\na/1.png,3\n2.png,0\n"),
        ("t.csv", '\ufeffname,class_index,file\r\n"x, y",3,./a/1.png\r\n,0,2.png'),
    ],
)
def test_truth(tmp_path: Path, file: str, content: object) -> None:
    assert read_truth(write(tmp_path / file, content)) == {"a/1.png": 3, "2.png": 0}


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("t.csv", "", "expected the columns"),
        ("t.csv", "file,label\na,1\n", "found file, label"),
        ("t.csv", "file,class_index\n", "no entries"),
        ("t.csv", "file,class_index\na.png,cat\n", r"line 2: .*found 'a\.png' and 'cat'"),
        ("t.csv", "file,class_index\na.png\n", "line 2"),
        ("t.csv", "file,class_index\na.png,-1\n", "line 2"),
        ("t.csv", "file,class_index\na.png,1\na.png,2\n", "two classes"),
        ("t.csv", 'file,class_index\n"a.png,1\n', "not a readable CSV"),
        ("t.csv", b"file,class_index\n\xff,1\n", "not a readable truth file"),
        ("t.json", "[]", "no entries"),
        ("t.json", [{"file": "a.png", "class_index": -1}], "-1"),
        ("t.json", [{"file": "a.png", "class_index": "1"}], "int"),
        ("t.json", "nonsense", r"t\.json"),
    ],
)
def test_truth_that_cannot_be_used(
    tmp_path: Path, file: str, content: object, expected: str
) -> None:
    with pytest.raises(DataError, match=expected) as error:
        read_truth(write(tmp_path / file, content))

    assert file in str(error.value)


def images(*names: str) -> list[ImageFile]:
    return [ImageFile(path=Path("data") / name, name=name) for name in names]


LABELS = Labels(names=("tabby_cat", "Great  Dane", "crow"), synsets=("n01", "n02", "n03"))


@pytest.mark.parametrize(
    ("files", "labels", "classes", "how"),
    [
        (["n03/a.png", "n01/b.png", "n03/sub/c.png"], LABELS, [2, 0, 2], "synsets"),
        (["great-dane/a.png", "Tabby cat/b.png"], LABELS, [1, 0], "class names"),
        (["02_crow/a.png", "0_x/b.png"], None, [2, 0], "N_name"),
        (["2_crow/a.png"], LABELS, [2], "N_name"),
        (["b/a.png", "a/a.png", "c/a.png"], None, [1, 0, 2], "ASSUMED"),
        (["b/a.png", "a/a.png", "c/a.png"], LABELS, [1, 0, 2], "ASSUMED"),
    ],
)
def test_folders(files: list[str], labels: Labels | None, classes: list[int], how: str) -> None:
    truth = match_truth(images(*files), num_classes=3, labels=labels)

    assert truth is not None
    np.testing.assert_array_equal(truth.of(images(*files)), classes)
    assert how in truth.how


def test_numbers_in_order_of_text_are_said() -> None:
    files = images(*(f"{index}/a.png" for index in range(11)))
    truth = match_truth(files, num_classes=11)

    assert truth is not None
    assert truth.classes["10/a.png"] == 2
    assert "'10' comes before '2'" in truth.how


def test_no_truth_is_claimed_for_a_flat_folder() -> None:
    assert match_truth(images("a.png", "b.png"), num_classes=3, labels=LABELS) is None


@pytest.mark.parametrize(
    ("files", "labels", "expected"),
    [
        (["a/1.png", "2.png"], None, r"'2\.png'"),
        (["a/1.png", "b/1.png"], None, "2 of 2 folders .*'a'.*not of the form N_name.*3 outputs"),
        (
            ["n01/1.png", "n09/1.png"],
            LABELS,
            r"1 of 2 .*'n09', which is not among [a-z ']*synsets,",
        ),
        (
            ["crow/1.png", "zebra/1.png"],
            LABELS,
            r"1 of 2 .*'zebra', which .* class names,.*--truth",
        ),
        (["x/1.png", "y/1.png"], LABELS, "'x', which .* synsets nor .* class names nor .* N_name"),
        (
            ["1_a/1.png", "crow/1.png", "2_b/1.png", "c/1.png"],
            LABELS,
            "2 of 4 .*'c', which is not of the form N_name,",
        ),
        (["3_x/1.png"], None, "class index 3, the model has outputs 0..2"),
        (["crane/1.png"], Labels(names=("crane", "cat", "crane")), r"classes \[0, 2\]"),
        (["a/1.png"], Labels(names=("a", "b")), "labels name 2 classes, the model has 3"),
    ],
)
def test_folders_that_cannot_be_matched(
    files: list[str], labels: Labels | None, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        match_truth(images(*files), num_classes=3, labels=labels)


def test_file_before_folders(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "file,class_index\nn01/a.png,2\nother.png,9\n")
    truth = match_truth(images("n01/a.png"), num_classes=3, labels=LABELS, truth=file)

    assert truth is not None
    assert truth.classes == {"n01/a.png": 2}
    assert truth.how == "ground truth from t.csv"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("b.png,0", r"1 of 1 images have no entry, first 'a\.png'.*look like 'b\.png'"),
        ("a.png,3", "class index 3, the model has outputs 0..2"),
    ],
)
def test_file_that_does_not_fit(tmp_path: Path, line: str, expected: str) -> None:
    file = write(tmp_path / "t.csv", f"file,class_index\n{line}\n")

    with pytest.raises(DataError, match=expected):
        match_truth(images("a.png"), num_classes=3, truth=file)


def test_real_photos_agree_by_file_and_by_synset(edgecls_data: Path) -> None:
    """The sorted position of a folder is not its class here: all even indices, not 0..499."""
    folder = edgecls_data / "imagenet500"
    listed = list_images(folder)
    labels = read_labels(edgecls_data / "imagenet_classes.json")
    by_folder = match_truth(listed, num_classes=1000, labels=labels)
    by_json, by_csv = (
        match_truth(listed, num_classes=1000, labels=labels, truth=folder / name)
        for name in ("labels.json", "labels.csv")
    )

    assert by_folder is not None
    assert by_json is not None
    assert by_csv is not None
    assert by_folder.classes == by_json.classes == by_csv.classes
    assert sorted(by_folder.classes.values()) == list(range(0, 1000, 2))
    with pytest.raises(DataError, match="500 of 500 folders"):
        match_truth(listed, num_classes=1000)


def test_real_class_names(edgecls_data: Path) -> None:
    cifar = read_labels(edgecls_data / "cifar10" / "classes.json")
    imagenet = read_labels(edgecls_data / "imagenet_classes.json")

    assert cifar.names[:2] == ("airplane", "automobile")
    assert len(imagenet.names) == 1000
    assert imagenet.names[1] == "goldfish, Carassius auratus"
    assert imagenet.synsets is not None
    assert imagenet.synsets[0] == "n01440764"


PETS = Labels(names=("bird", "cat", "dog"))


@pytest.mark.parametrize(
    ("folders", "match"),
    [
        # In order of the names each would be taken for its neighbour.
        (("ant", "bird", "cat"), "1 of 3 folders match no class, such as 'ant'"),
        (("0_dog", "1_cat", "2_bird"), "two answers to which class it is: 0 by .*, 2 by .* 'dog'"),
    ],
)
def test_folders_that_contradict_the_labels(folders: tuple[str, ...], match: str) -> None:
    images = [ImageFile(path=Path(name), name=f"{name}/1.png") for name in folders]

    with pytest.raises(DataError, match=match):
        match_truth(images, num_classes=3, labels=PETS)


def test_names_of_a_data_set_that_contradict_the_labels() -> None:
    with pytest.raises(DataError, match=r"2 of the data set's 3 classes .*'bird', .*'ant'"):
        match_classes(("ant", "bird", "cat"), PETS, 3)

    assert match_classes(("dog", "bird"), PETS, 3)[0].tolist() == [2, 0]
    assert match_classes(("0", "1", "2"), PETS, 3)[0].tolist() == [0, 1, 2]
