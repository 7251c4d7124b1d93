from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecls.core.errors import ImageError, UsageError
from edgecls.drift.evaluation import Evaluation, EvaluationCounts
from edgecls.drift.report import Skipped
from edgecls.reports import plot_confusion, write_evaluation
from edgecls.reports.evaluation import evaluation_to_html, evaluation_to_markdown

from .conftest import HOSTILE
from .test_html import Page


def evaluation(classes: int, images: int = 600, skipped: int = 0) -> Evaluation:
    random = np.random.default_rng(1)
    truth = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes)).astype(np.float32)
    logits[np.arange(images), truth] += 3
    counts = EvaluationCounts()
    counts.add([f"{index}{HOSTILE}" for index in range(images)], logits, truth)
    return counts.result(
        model=f"model{HOSTILE}", backend="torch", truth="from folders",
        names={index: f"class {index}{HOSTILE}" for index in range(classes)},
        skipped=tuple(Skipped(image=HOSTILE, reason="damaged") for _ in range(skipped)),
    )  # fmt: skip


def picture(name: str) -> tuple[str, bytes]:
    if name.startswith("1"):
        raise ImageError(name, "gone")
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return "image/png", file.getvalue()


@pytest.mark.parametrize("classes", [2, 10, 40, 300])
def test_the_page_is_well_formed_and_tells_the_numbers(classes: int) -> None:
    found = evaluation(classes, skipped=3)
    page = Page(evaluation_to_html(found, picture))
    text = page.all("body")[0][1]

    assert f"Top-1 {found.top1:.2f} %" in text
    assert f"ECE: {found.ece:.2f} %" in text
    assert "could not be read: 3" in text
    assert not page.all("script")
    attributes = {name for _, found_here, _ in page.elements for name in found_here}
    assert not [name for name in attributes if name.startswith("on")]
    cells = [attrs for attrs, _ in page.all("td") if "diagonal" in (attrs.get("class") or "")]
    assert len(cells) == (classes if classes <= 16 else 0)
    assert len(page.all("img")) + text.count("not shown: gone") == min(24, found.wrong)


def test_the_matrix_has_the_counts() -> None:
    found = evaluation(3)
    page = Page(evaluation_to_html(found))

    fields = [
        int(text or 0)
        for attrs, text in page.all("td")
        if (attrs.get("class") or "").startswith("count")
    ]

    counts = {(cell.truth, cell.answer): cell.images for cell in found.confusion}
    assert fields == [counts.get((i, j), 0) for i in range(3) for j in range(3)]


def test_many_classes_are_a_heat_map_whose_rows_sum_to_one() -> None:
    page = Page(evaluation_to_html(evaluation(40)))
    rows: dict[str, float] = {}
    for attrs, _ in page.all("rect"):
        if attrs.get("width") == "1":
            y = str(attrs["y"])
            rows[y] = rows.get(y, 0.0) + float(attrs["fill-opacity"] or 0)

    assert len(rows) == 40
    assert all(total == pytest.approx(1, abs=0.1) for total in rows.values())


def test_markdown_shows_nothing_as_markup() -> None:
    found = evaluation(10, skipped=1)
    text = evaluation_to_markdown(found)

    assert "<script" not in text.replace("\\<", "")
    assert f"| top-1 | {found.top1:.2f} % |" in text
    for line in text.splitlines():
        assert not re.search(r"[\x00-\x08\x1b]", line)


@pytest.mark.parametrize("classes", [3, 30, 300])
def test_the_plot_is_the_same_every_time(tmp_path: Path, classes: int) -> None:
    pytest.importorskip("matplotlib")
    found = evaluation(classes)
    for name in ("a.png", "b.png"):
        plot_confusion(found, tmp_path / name)

    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as plot:
        assert len(plot.convert("RGB").getcolors(1 << 20) or ()) > 5


@pytest.mark.parametrize("suffix", ["json", "md", "html"])
def test_each_ending_has_its_form(tmp_path: Path, suffix: str) -> None:
    found = evaluation(4)
    forms: dict[str, Callable[[], bytes]] = {
        "json": found.to_json,
        "md": lambda: evaluation_to_markdown(found).encode(),
        "html": lambda: evaluation_to_html(found).encode(),
    }
    write_evaluation(found, tmp_path / f"x.{suffix}")

    assert (tmp_path / f"x.{suffix}").read_bytes() == forms[suffix]()
    with pytest.raises(UsageError):
        write_evaluation(found, tmp_path / "x.xml")
