"""The page: well formed, sealed, accessible, and telling the truth."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecls.drift import Budgets, DriftReport, compare, judge
from edgecls.drift.certificate import Certificate
from edgecls.drift.explanation import Explanation
from edgecls.drift.matrix import Matrix
from edgecls.reports.html import (
    certificate_to_html,
    explanation_to_html,
    matrix_to_html,
    to_html,
)

Make = Callable[..., DriftReport]
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Elements in order, their text, and a check that every one is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._stack: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        self.elements.append((tag, dict(attrs), text))
        if tag not in VOID:
            self.open.append(tag)
            self._stack.append(text)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        self._stack.pop()

    def handle_data(self, data: str) -> None:
        for text in self._stack:
            text.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (found, " ".join(" ".join(text).split()))
            for name, found, text in self.elements
            if name == tag
        ]


@pytest.fixture
def full(make: Make, photos: Path) -> str:
    budgets = Budgets(max_drop=1, max_top5_drop=5, max_class_drop=10, min_agreement=95)
    return to_html(make(budgets=budgets), photos)


@pytest.fixture
def thousand(make: Make) -> str:
    return to_html(make(classes=1000, labels=None))


@pytest.fixture
def bare(make: Make) -> str:
    return to_html(make(lost=0, truth=False, provenance=None, latency=None, labels=None))


@pytest.fixture
def attacked(hostile: DriftReport, photos: Path) -> str:
    return to_html(hostile, photos)


@pytest.fixture
def pairs(matrix: Matrix) -> str:
    return matrix_to_html(matrix)


@pytest.fixture
def why(explanation: Explanation) -> str:
    return explanation_to_html(explanation)


@pytest.fixture
def certified(certificate: Certificate) -> str:
    return certificate_to_html(certificate)


every_page = pytest.mark.parametrize(
    "page", ["full", "thousand", "bare", "attacked", "pairs", "why", "certified"]
)


@every_page
def test_nothing_is_loaded_and_nothing_runs(page: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(page)
    found = Page(text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [a for a, _ in found.all("meta") if "http-equiv" in a]

    assert policy["content"] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert "url(" not in style
    assert "@import" not in style
    tags = {tag for tag, _, _ in found.elements}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base", "a"}
    for tag, attributes, _ in found.elements:
        assert not {name for name in attributes if name == "style" or name.startswith("on")}, tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), tag
        for value in attributes.values():
            assert "url(" not in (value or "") or value == "url(#hatch)"


@every_page
def test_it_can_be_read_without_seeing_it(page: str, request: pytest.FixtureRequest) -> None:
    found = Page(request.getfixturevalue(page))
    levels = [int(tag[1]) for tag, _, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    ids = [attributes["id"] for _, attributes, _ in found.elements if "id" in attributes]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(ids) == len(set(ids))
    assert found.all("html")[0][0]["lang"] == "en"
    assert len(found.all("main")) == 1
    for attributes, text in found.all("th"):
        assert attributes.get("scope") in {"col", "row"}
        assert text, "a heading says something"
    for attributes, _ in found.all("img"):
        assert attributes["alt"]
    for attributes, _ in found.all("svg"):
        named = attributes.get("aria-label") or attributes.get("aria-labelledby")
        assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and named)
    for _, attributes, _ in found.elements:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0", "can be scrolled with the keyboard"
            assert attributes["aria-label"]


def test_the_verdict_stands_on_top(full: str) -> None:
    found = Page(full)

    assert found.all("h1")[0][1] == "✕ Failed"
    assert "the conversion costs more than a budget allows: top-1 drop" in full
    outcomes = [text for a, text in found.all("td") if a.get("data-label") == "outcome"]
    assert sorted(set(outcomes)) == ["? undecided", "✓ passed", "✕ failed"]


def test_flips_are_shown_with_both_answers(full: str, make: Make, photos: Path) -> None:
    report, found = make(), Page(full)
    worst = report.metrics.flips[0]
    pictures = found.all("img")
    (media, data) = str(pictures[0][0]["src"]).split(",")
    shown = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    original = Image.open(photos / worst.image).convert("RGB").resize(shown.size)

    assert len(pictures) == 24
    assert media == "data:image/jpeg;base64"
    assert shown.size == (176, 132)
    assert np.abs(np.asarray(shown, float) - np.asarray(original, float)).mean() < 3
    assert [a["alt"] for a, _ in pictures] == [flip.image for flip in report.metrics.flips[:24]]
    card = next(text for _, text in found.all("li") if worst.image in text)
    assert card.startswith(f"{worst.image} lost truth {worst.truth} class {worst.truth} reference")
    assert f"candidate {worst.candidate} class {worst.candidate}" in card
    assert len(full) < 600_000


def test_an_image_that_is_gone_is_said_so(make: Make, tmp_path: Path) -> None:
    assert "no such file" in to_html(make(), tmp_path).lower()
    assert "not shown: no folder of images was given" in to_html(make())


def test_tiny_images_are_not_blurred(make: Make, tmp_path: Path) -> None:
    report = make()
    name = report.metrics.flips[0].image
    codes = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    (tmp_path / name).parent.mkdir(parents=True)
    Image.fromarray(codes).save(tmp_path / name, format="PNG")
    ((attributes, _),) = Page(to_html(report, tmp_path)).all("img")
    data = base64.b64decode(str(attributes["src"]).split(",")[1])

    assert attributes["class"] == "tiny"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("L")), codes)


def test_confusion_of_ten_classes(full: str, make: Make) -> None:
    report, found = make(), Page(full)
    assert report.metrics.graded is not None
    shown = [text for a, text in found.all("td") if str(a.get("class")).startswith("count")]
    numbers = np.asarray([int(text or 0) for text in shown]).reshape(2, 10, 10)

    assert numbers.sum((1, 2)).tolist() == [600, 600]
    for cell in report.metrics.graded.confusion:
        assert numbers[:, cell.truth, cell.answer].tolist() == [cell.reference, cell.candidate]


def test_a_thousand_classes_fit(thousand: str) -> None:
    found = Page(thousand)

    assert "1,000 classes do not fit on a page" in thousand
    assert not [1 for a, _ in found.all("table") if a.get("class") == "grid"]
    assert len(found.all("tr")) < 100
    assert len(thousand) < 100_000


def test_without_truth(bare: str) -> None:
    assert "no ground truth" in bare
    for word in ("Confusion", "Reliability", "McNemar", "Classes"):
        assert word not in bare


def test_latency_only_where_it_was_measured(full: str, bare: str) -> None:
    rows = [text for _, text in Page(full).all("tr")]

    assert "candidate, litert 2.05 ms 2.20 ms 50" in rows
    assert "Time of one image" not in bare


def test_nothing_changed(make: Make) -> None:
    same = np.eye(3, dtype=np.float32)
    metrics = compare(["a", "b", "c"], same, same, [0, 1, 2])
    page = to_html(make(metrics=metrics, verdict=judge(metrics, Budgets()), labels=None))

    assert "Images that changed their answer: 0" in page
    assert Page(page).all("h1")[0][1] == "? Undecided"


def test_hostile_text_is_text(attacked: str) -> None:
    found = Page(attacked)

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in attacked
    assert not {"\x00", "\x1b", "\u202e"} & set(attacked)
    assert "\\u202e" in found.all("dd")[0][1]


def test_matrix(pairs: str, matrix: Matrix) -> None:
    found = Page(pairs)
    cells = [text for _, text in found.all("td") if "%" in text]

    assert cells == [
        f"{pair.agreement:.2f} % {pair.lower:.2f} .. {pair.upper:.2f}" for pair in matrix.pairs
    ]


def test_certificate(certified: str) -> None:
    found = Page(certified)
    rows = [text for _, text in found.all("tr")]

    assert "These compute something else than the exporting machine: kitchen." in certified
    assert "199 of 200 99.50 % (97.65 .. 99.99) equal bit for bit" in rows[3]
    assert "kitchen: golden/0.jpg (decode): 12 of 150528 pixel codes differ" in certified
    assert any(row.startswith("pillow 10.0.0 11.0.0 12.0.0") for row in rows)


def test_explanation(why: str) -> None:
    found = Page(why)
    rows = [text for _, text in found.all("tr")]

    assert "Shown to cost something: channel order." in why
    assert rows[1].startswith("channel order RGB BGR 9.00 ")
    assert " yes " in rows[1]
    assert " no " in rows[2]
    assert rows[3].startswith("all 9.00 ")
    assert "41.00 % 3.00 % 2.00 % 0.5 -" in rows[5]
