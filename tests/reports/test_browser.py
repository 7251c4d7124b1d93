"""The page in Chromium, at the width of a desk and of a phone, in both colour schemes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecls.drift import DriftReport
from edgecls.drift.certificate import Certificate
from edgecls.drift.explanation import Explanation
from edgecls.drift.matrix import Matrix
from edgecls.reports import write_certificate, write_explanation, write_matrix, write_report

if TYPE_CHECKING:
    from .conftest import Browser

pytestmark = pytest.mark.slow


@pytest.fixture(
    scope="module", params=["full", "thousand", "hostile", "matrix", "explanation", "certificate"]
)
def page(
    request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory,
    builders: dict[str, Callable[[], DriftReport | Matrix | Explanation | Certificate]],
) -> str:  # fmt: skip
    file = tmp_path_factory.mktemp("page") / "page.html"
    found = builders[request.param]()
    if isinstance(found, Matrix):
        write_matrix(found, file)
    elif isinstance(found, Explanation):
        write_explanation(found, file)
    elif isinstance(found, Certificate):
        write_certificate(found, file)
    else:
        write_report(found, file, images=photos)
    return file.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser: Browser, page: str, width: int, scheme: str) -> None:
    browser.open(page, width=width, scheme=scheme)

    assert browser.complaints() == []
    assert [url for url in browser.requested() if not url.startswith("data:")] == [page]
    assert browser.value("document.documentElement.scrollWidth") == width, "no sideways scrolling"
    assert browser.value("document.documentElement.clientWidth") == width
    broken = "[...document.images].filter(image => !image.naturalWidth).length"
    assert browser.value(broken) == 0


LUMINANCE = """
(selector => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll(selector)].map(element => {
    const text = light(getComputedStyle(element).color);
    return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
  });
})("h1, h2, p, dt, dd, th, td:not([class*=shade]), small, .tag, .legend")
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Browser, page: str, scheme: str) -> None:
    """WCAG 2.1, criterion 1.4.3: at least 4.5 to 1."""
    browser.open(page, width=1280, scheme=scheme)
    found = browser.value(LUMINANCE)

    assert len(found) > 10
    assert min(found) >= 4.5


def test_the_schemes_differ(browser: Browser, page: str) -> None:
    colours = []
    for scheme in ("light", "dark"):
        browser.open(page, width=1280, scheme=scheme)
        colours.append(browser.value("getComputedStyle(document.body).backgroundColor"))

    light, dark = (sum(map(int, re.findall(r"\d+", colour))) for colour in colours)
    assert light > 600
    assert dark < 150


def test_the_browser_would_tell(browser: Browser, tmp_path: Path) -> None:
    """A page that does all that is forbidden is noticed."""
    file = tmp_path / "bad.html"
    file.write_text(
        "<meta name=viewport content='width=device-width'><p style='width:2000px'>wide</p>"
        "<img src='http://127.0.0.1:9/none.png'><script>console.error('loud')</script>"
    )
    browser.open(file.as_uri(), width=390, scheme="light")

    assert browser.complaints()
    assert "http://127.0.0.1:9/none.png" in browser.requested()
    assert browser.value("document.documentElement.scrollWidth") > 390
