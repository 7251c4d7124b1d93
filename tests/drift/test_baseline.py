"""Baselines: what they keep, and every reason to refuse one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgecls.core.errors import DataError
from edgecls.core.preprocess import PRESETS
from edgecls.data.labels import Labels
from edgecls.drift.answers import answers_of
from edgecls.drift.baseline import Baseline, keep, kept_answers, read_baseline

NAMES = ["b/2.png", "a/1.png", 'c, "quoted" é.png']
HASHES = ["1" * 64, "2" * 64, "3" * 64]
TRUTH = np.asarray([1, 0, 2])
TRUTH_BY_NAME: Mapping[str, int] = dict(zip(NAMES, TRUTH.tolist(), strict=True))


def made() -> Baseline:
    logits = np.asarray([[0, 3, 1], [2, 1, 0], [1, 0, 0]], np.float32)
    answers = answers_of(logits, TRUTH, names=NAMES)
    images = dict(zip(NAMES, keep(HASHES, answers, TRUTH), strict=True))
    return Baseline(model="pi", backend="litert", classes=3, preprocess=PRESETS["mnist"],
                    images=images, labels=Labels(names=("a", "b", "c")),
                    skipped=("broken.png",))  # fmt: skip


def check(found: Baseline, **changes: Any) -> None:
    fields: dict[str, Any] = {"path": Path("b.json"), "preprocess": PRESETS["mnist"],
                              "classes": 3, "names": NAMES, "truth": TRUTH_BY_NAME}  # fmt: skip
    found.check(**{**fields, **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made().write(tmp_path / "b.json")
    found = read_baseline(tmp_path / "b.json")
    kept = [found.images[name] for name in NAMES]
    answers = kept_answers(tmp_path / "b.json", NAMES, kept, HASHES)

    assert found == made()
    check(found)
    assert answers.top1.tolist() == [1, 0, 0]
    assert answers.in_top5 is not None
    assert answers.in_top5.all()
    assert answers.confidence.tolist() == [round(1e5 * x) for x in (0.84379, 0.66524, 0.57612)]


def test_one_line_per_image_sorted_and_the_same_every_time(tmp_path: Path) -> None:
    made().write(tmp_path / "b.json")
    msgspec.structs.replace(made(), images=dict(reversed(made().images.items()))).write(
        tmp_path / "other.json"
    )
    lines = (tmp_path / "b.json").read_text().splitlines()

    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "other.json").read_bytes()
    assert lines[-5:-2] == sorted(lines[-5:-2])
    assert lines[-5] == '  "a/1.png": ["2222222222222222", 0, 0, true, 0.66524],'
    assert set(json.loads("\n".join(lines))["images"]) == set(NAMES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"preprocess": PRESETS["imagenet"]}, "preprocessing has changed: color was 'gray', is"),
        ({"classes": 4}, "3 classes, the model 4"),
        ({"names": NAMES[:2]}, "0 images are new and 1 are missing"),
        ({"names": [*NAMES, "new.png"]}, "1 images are new and 0 are missing, e.g. 'new.png'"),
        ({"truth": None}, "ground truth has changed: 'b/2.png' was class 1, is None"),
        ({"truth": dict.fromkeys(NAMES, 0)}, "'b/2.png' was class 1, is 0"),
    ],
)
def test_another_data_set_or_preprocessing_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match="--save-baseline") as refused:
        check(made(), **changes)

    assert said in str(refused.value)


def test_an_image_that_could_not_be_read_is_no_change_until_it_can() -> None:
    check(made(), names=[*NAMES, "broken.png"], truth={**TRUTH_BY_NAME, "broken.png": 2})
    check(made())
    with pytest.raises(DataError, match=r"'broken\.png' could not be read then"):
        kept_answers(Path("b.json"), ["broken.png"], [None], ["4" * 64])


def test_an_image_that_is_another_file_is_refused() -> None:
    kept = [made().images[name] for name in NAMES]
    with pytest.raises(DataError, match=r"'a/1\.png' is another file"):
        kept_answers(Path("b.json"), NAMES, kept, [HASHES[0], "f" * 64, HASHES[2]])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"classes": 3', '"classes": 2'),
        ('"schema_version": 2', '"schema_version": 1'),
        ("0.66524", "1.5"),
        ('0, 0, true, 0.66524', '0, 0, null, 0.66524'),
        ("edgecls-baseline", "other"),
        ("{", ""),
        ('"backend": "litert",', ""),
        ('["a", "b", "c"]', '["a", "b"]'),
    ],
)  # fmt: skip
def test_damage_is_refused(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "b.json"
    made().write(file)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))

    with pytest.raises(DataError, match=r"b\.json"):
        read_baseline(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a baseline"):
        read_baseline(tmp_path / "none.json")
