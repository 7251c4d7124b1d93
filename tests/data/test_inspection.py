from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecls.core.progress import Quiet
from edgecls.data.dataset import open_splits
from edgecls.data.duplicates import Duplicates, Member, exact_duplicates, near_duplicates
from edgecls.data.inspection import DataReport, inspect
from edgecls.data.likeness import SAME, thumbnail

Groups = list[tuple[str, tuple[str, ...]]]


def photo(file: Path, seed: int, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> None:
    codes = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(codes).resize(size, Image.Resampling.BICUBIC).convert(mode)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, quality=95)


def groups(found: tuple[Duplicates, ...] | None) -> Groups:
    return [(group.across, tuple(m.name for m in group.images)) for group in found or ()]


def look(folder: Path, **options: bool) -> DataReport:
    return inspect(folder.name, open_splits(folder), Quiet(), **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("val", 2)):
        for index in range(count):
            for place, name in enumerate(("cat", "dog")):
                seed = 100 * len(split) + 10 * index + place
                photo(tmp_path / "data" / split / name / f"{index}.png", seed)
    return tmp_path / "data"


def test_a_good_data_set_has_no_faults(folder: Path) -> None:
    found = look(folder)

    assert found.faults == found.remarks == ()
    assert found.duplicates == found.near_duplicates == ()
    assert found.classes == ("cat", "dog")
    train = found.splits["train"]
    assert (train.images, train.counts) == (12, (6, 6))
    assert train.sizes == {"48x40": 12}
    assert train.width is not None
    assert (train.width.smallest, train.width.median, train.width.largest) == (48, 48.0, 48)
    assert train.modes == {"RGB": 12}
    assert train.formats == {"PNG": 12}
    assert found.imbalance == 1.0


def test_sizes_and_modes_are_the_files_own(folder: Path) -> None:
    photo(folder / "val" / "cat" / "gray.png", 1, (10, 20), "L")
    photo(folder / "val" / "cat" / "print.jpg", 2, (30, 40), "CMYK")

    val = look(folder).splits["val"]

    assert val.modes == {"RGB": 4, "L": 1, "CMYK": 1}
    assert val.formats == {"PNG": 5, "JPEG": 1}
    assert val.sizes == {"48x40": 4, "10x20": 1, "30x40": 1}
    assert val.width is not None
    assert (val.width.smallest, val.width.median, val.width.largest) == (10, 48.0, 48)


def test_unreadable_images_are_listed_with_their_reasons(folder: Path) -> None:
    (folder / "train" / "dog" / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "train" / "dog" / "empty.jpg").write_bytes(b"")

    found = look(folder)

    listed = {bad.image: bad.reason for bad in found.splits["train"].unreadable}
    assert set(listed) == {"dog/bad.jpg", "dog/empty.jpg"}
    assert listed["dog/empty.jpg"] == "the file is empty"
    assert found.faults == ("2 of 14 images of train are unreadable",)


def test_copies_are_found_within_and_across(folder: Path) -> None:
    train, val = folder / "train", folder / "val"
    shutil.copy(train / "cat" / "0.png", train / "cat" / "copy.png")
    shutil.copy(train / "cat" / "1.png", train / "dog" / "copy.png")
    shutil.copy(train / "cat" / "2.png", val / "cat" / "copy.png")

    found = look(folder)

    assert groups(found.duplicates) == [
        ("splits", ("train/cat/2.png", "val/cat/copy.png")),
        ("classes", ("train/cat/1.png", "train/dog/copy.png")),
        ("none", ("train/cat/0.png", "train/cat/copy.png")),
    ]
    assert found.near_duplicates == (), "copies are no news"
    assert [fault.split(" ", 1)[0] for fault in found.faults] == ["1", "1"]
    assert "more than one split" in found.faults[0]
    assert "more than one class" in found.faults[1]
    assert found.remarks == ("1 images are copies of others of their class",)


def test_the_same_picture_in_another_encoding_is_found(folder: Path) -> None:
    original = folder / "train" / "cat" / "0.png"
    image = Image.open(original)
    image.resize((96, 80), Image.Resampling.BICUBIC).save(folder / "val" / "cat" / "large.png")
    image.save(folder / "train" / "cat" / "other.jpg", quality=90)

    found = look(folder)

    names = ("train/cat/0.png", "train/cat/other.jpg", "val/cat/large.png")
    assert groups(found.near_duplicates) == [("splits", names)]
    assert found.faults == ()
    assert found.remarks == ("1 groups of images in different splits look the same",)
    assert look(folder, near=False).near_duplicates is None


def test_classes_without_images_and_imbalance_are_said(folder: Path) -> None:
    shutil.rmtree(folder / "val" / "dog")
    for index in range(2, 6):
        (folder / "train" / "dog" / f"{index}.png").unlink()
    for index in range(15):
        photo(folder / "train" / "cat" / f"more{index}.png", 7000 + index)

    found = look(folder)

    assert found.faults == ("1 classes of val have no image, first 'dog'",)
    assert found.imbalance == 23 / 2
    assert found.remarks == ("the largest class has 11.5 times the images of the smallest",)


def test_indices_that_no_image_has_are_no_fault(tmp_path: Path) -> None:
    for index in range(4):
        photo(tmp_path / "data" / f"{index}.png", index)
    rows = ["file,class_index", "0.png,1", "1.png,1", "2.png,1", "3.png,4"]
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))

    found = look(tmp_path / "data")

    assert found.faults == ()
    assert found.remarks == ("3 classes have no image in any split",)
    assert found.imbalance == 3.0


def test_near_duplicates_are_all_pairs_that_are_alike() -> None:
    """Against every pair, one by one, linked by a plain search; more images than one block."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (1100, 8, 8, 3), np.uint8)
    for _ in range(40):
        one, other = random.integers(0, 1100, 2)
        pictures[one] = np.clip(pictures[other].astype(int) + random.integers(-3, 4), 0, 255)
    thumbnails = np.stack([thumbnail(picture) for picture in pictures])
    members = [Member(name=f"{i:04d}", split="", label="") for i in range(1100)]
    digests = [picture.tobytes().hex() for picture in pictures]

    found = near_duplicates(members, digests, thumbnails)

    first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
    own = sorted(first.values())
    links: dict[int, set[int]] = {place: {place} for place in own}
    products = thumbnails.astype(np.float64) @ thumbnails.T.astype(np.float64)
    for one in own:
        for other in own:
            if one != other and products[one, other] >= SAME:
                union = links[one] | links[other]
                for place in union:
                    links[place] = union
    expected = {tuple(sorted(group)) for group in links.values() if len(group) > 1}
    assert {tuple(int(m.name) for m in group.images) for group in found} == expected
    assert len(expected) > 10


def test_one_image_is_no_duplicate() -> None:
    member = Member(name="a", split="", label="x")

    assert exact_duplicates([member], ["1"]) == ()
    assert near_duplicates([member], ["1"], np.zeros((1, 1024), np.float32)) == ()


def test_hostile_files_are_all_looked_at(edgecls_data: Path, tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.mkdir()
    (place / "nasty").symlink_to(edgecls_data / "nasty")

    found = look(place).splits[""]

    bad = {Path(item.image).name: item.reason for item in found.unreadable}
    assert {"truncated.jpg", "zero_byte.jpg", "bomb_30000x30000.png"} <= set(bad)
    assert "px" in bad["bomb_30000x30000.png"]
    assert sum(found.modes.values()) + len(bad) == found.images
    assert {"RGB", "L", "CMYK", "RGBA", "P", "LA", "1"} <= set(found.modes)


def test_the_command_says_all_that_and_fails(folder: Path, edgecls) -> None:
    done = edgecls("data", folder)
    assert done.code == 0, done.err
    assert "no faults" in done.out

    shutil.copy(folder / "train" / "cat" / "0.png", folder / "val" / "dog" / "[b]x.png")
    (folder / "train" / "dog" / "bad\x1b[31m.jpg").write_bytes(b"x")

    done = edgecls("data", folder)

    assert done.code == 1
    assert "\x1b[31m" not in done.out
    assert "bad\\x1b[31m.jpg" in done.out
    assert "[b]x.png" in done.out
    assert "across splits" in done.out
    report = json.loads(edgecls("data", folder, "--json", "--no-near").out)
    assert report["duplicates"][0]["across"] == "splits"
    assert report["near_duplicates"] is None
    assert report["splits"]["train"]["unreadable"][0]["reason"].startswith("not an image")


def test_the_command_compares_two_folders(folder: Path, edgecls) -> None:
    done = edgecls("data", folder / "train", "--val", folder / "val", "--json")
    assert done.code == 0, done.err
    assert list(json.loads(done.out)["splits"]) == ["train", "val"]

    assert edgecls("data", folder, "--val", folder / "val").code == 4
    assert edgecls("data", folder / "absent").code == 2
    (folder / "train" / "emu").mkdir()
    done = edgecls("data", folder / "train")
    assert done.code == 4
    assert "emu: no images" in done.err


def test_the_commands_json_is_what_the_schema_says(folder: Path, edgecls) -> None:
    import jsonschema

    from edgecls.reports.schema import schemas

    schema = json.loads(schemas()["data.schema.json"])
    jsonschema.Draft202012Validator(schema).validate(
        json.loads(edgecls("data", folder, "--json").out)
    )
