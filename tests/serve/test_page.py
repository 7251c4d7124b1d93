"""The page in a real browser: what a person can do with it, and that it asks nobody else."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecls.runtimes import load

from ..runtimes.conftest import encoded, photo
from .process import Running, running

pytestmark = pytest.mark.slow

DROP = """(data) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], "given.png", { type: "image/png" }));
    return carried;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def server(pi_bundle: Path) -> Iterator[Running]:
    with running(pi_bundle) as started:
        yield started


class Visit:
    """A page, with everything that it asked for and complained of."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.url = url
        self.page.goto(url)

    def answer(self) -> str:
        """Wait for an answer, and return what a screen reader hears."""
        self.page.wait_for_selector("#classes li")
        return str(self.page.inner_text("[role=status]"))

    def is_quiet(self) -> None:
        assert [url for url in self.asked if not url.startswith((self.url, "blob:"))] == []
        assert self.said == []

    def close(self) -> None:
        self.context.close()


def wanted(bundle: Path, image: bytes) -> str:
    best = load(bundle).predict(image).top1
    return f"{best.label}, {100 * best.score:.1f} %"


def given(index: int) -> dict[str, Any]:
    return {"name": "given.png", "mimeType": "image/png", "buffer": encoded(photo(index))}


def test_a_chosen_image_is_answered(browser: Any, server: Running, pi_bundle: Path) -> None:
    visit = Visit(browser, server.url)
    visit.page.set_input_files("#file", given(1))

    assert visit.answer() == wanted(pi_bundle, encoded(photo(1)))
    rows = visit.page.locator("#classes li")
    assert rows.count() == 5
    widths = [row.bounding_box()["width"] for row in visit.page.locator("#classes .bar").all()]
    assert widths == sorted(widths, reverse=True)
    assert visit.page.locator("#stages dt").all_inner_texts() == [
        "Decode", "Resize and crop", "Queue", "Network", "Ranking", "Total",
    ]  # fmt: skip
    card = visit.page.inner_text("#card")
    assert "int8" in card
    assert load(pi_bundle).bundle.sha256 in card
    visit.is_quiet()
    visit.close()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_can_be_dropped_or_pasted(
    browser: Any, server: Running, pi_bundle: Path, way: str
) -> None:
    visit = Visit(browser, server.url)
    carried = visit.page.evaluate_handle(DROP, base64.b64encode(encoded(photo(2))).decode())
    if way == "drop":
        visit.page.dispatch_event("#drop", "drop", {"dataTransfer": carried})
    else:
        visit.page.evaluate(
            "(carried) => document.dispatchEvent(new ClipboardEvent('paste',"
            " { clipboardData: carried, bubbles: true }))",
            carried,
        )

    assert visit.answer() == wanted(pi_bundle, encoded(photo(2)))
    visit.is_quiet()
    visit.close()


def test_the_camera_takes_a_picture_by_keyboard(browser: Any, server: Running) -> None:
    visit = Visit(browser, server.url, permissions=["camera"])
    visit.page.focus("#camera")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#shoot:focus")
    visit.page.keyboard.press("Enter")

    assert visit.answer()
    assert not visit.page.is_visible("#video")
    assert visit.page.inner_text("#camera") == "Use the camera"
    visit.is_quiet()
    visit.close()


def test_everything_is_reached_by_keyboard(browser: Any, server: Running) -> None:
    visit = Visit(browser, server.url)
    order = []
    for _ in range(3):
        visit.page.keyboard.press("Tab")
        order.append(visit.page.evaluate("document.activeElement.id || 'a link'"))

    assert order == ["file", "camera", "a link"]
    # What has no text of its own has a name for a screen reader.
    for name in ("Choose an image or drop one here, or paste it", "Use the camera"):
        assert name in " ".join(visit.page.locator("body").aria_snapshot().split())
    visit.close()


def test_an_error_is_told(browser: Any, server: Running) -> None:
    visit = Visit(browser, server.url)
    visit.page.set_input_files(
        "#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"}
    )
    visit.page.wait_for_selector("[role=alert]:visible")

    assert "not an image: unknown format" in visit.page.inner_text("[role=alert]")
    assert visit.page.locator("#classes li").count() == 0
    visit.close()


def test_what_is_no_image_leaves_no_broken_one(browser: Any, server: Running) -> None:
    visit = Visit(browser, server.url)
    visit.page.set_input_files(
        "#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"}
    )
    visit.page.wait_for_selector("[role=alert]:visible")

    visit.page.wait_for_selector("#preview", state="hidden")
    visit.page.set_input_files("#file", given(0))
    assert visit.answer()
    assert visit.page.is_visible("#preview")
    visit.close()


def test_of_several_files_the_first_is_taken_and_said_so(browser: Any, server: Running) -> None:
    visit = Visit(browser, server.url)
    carried = visit.page.evaluate_handle(DROP, base64.b64encode(encoded(photo(2))).decode())
    visit.page.evaluate("(carried) => carried.items.add(carried.files[0])", carried)
    visit.page.dispatch_event("#drop", "drop", {"dataTransfer": carried})

    assert "the first of 2 files" in visit.answer()
    visit.close()


def test_a_server_that_is_gone_is_told(browser: Any, pi_bundle: Path) -> None:
    with running(pi_bundle) as server:
        visit = Visit(browser, server.url)
        visit.page.wait_for_selector("#card dd")
        server.stop()
        visit.page.set_input_files("#file", given(0))
        visit.page.wait_for_selector("[role=alert]:visible")

        assert "The server does not answer" in visit.page.inner_text("[role=alert]")
        visit.close()


def test_an_answer_that_is_no_json_is_told(browser: Any, server: Running) -> None:
    visit = Visit(browser, server.url)
    visit.page.route(
        "**/v1/predict*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>")
    )
    visit.page.set_input_files("#file", given(0))
    visit.page.wait_for_selector("[role=alert]:visible")

    assert "status 502" in visit.page.inner_text("[role=alert]")
    visit.close()


def test_a_name_is_text_and_nothing_else(browser: Any, server: Running) -> None:
    visit = Visit(browser, server.url)
    name = "<img src=x onerror=document.title='bad'>.txt"
    visit.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": b"x"})
    visit.page.wait_for_selector("[role=alert]:visible")

    assert "<img src=x" in visit.page.inner_text("[role=alert]")
    assert visit.page.title() == "test - edgecls"
    visit.close()


def test_the_key_is_asked_for(browser: Any, pi_bundle: Path) -> None:
    key = "0123456789abcdef"
    with running(pi_bundle, EDGECLS_API_KEY=key) as server:
        visit = Visit(browser, server.url)
        visit.page.wait_for_selector("#key-form:visible")
        alert = visit.page.locator("[role=alert]")
        assert alert.inner_text() == "The API key is needed first."
        visit.page.set_input_files("#file", given(0))
        for wrong, told in (("ключ" * 4, False), (key[:-1] + "x", True)):
            visit.page.fill("#key", wrong)
            visit.page.keyboard.press("Enter")
            if told:
                alert.filter(has_text="That is not the server's API key.").wait_for()
            assert visit.page.is_visible("#key-form")
        visit.page.fill("#key", f" {key} ")
        visit.page.keyboard.press("Enter")

        # The image that was chosen before is sent now.
        assert visit.answer() == wanted(pi_bundle, encoded(photo(0)))
        assert not visit.page.is_visible("#key-form")
        assert visit.page.evaluate("document.activeElement.id") == "file"
        visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_fits_and_can_be_read(browser: Any, server: Running, scheme: str, width: int) -> None:
    """Nothing is wider than the screen; text stands out from what is behind it (WCAG AA: 4.5)."""
    size = {"width": width, "height": 800}
    visit = Visit(browser, server.url, color_scheme=scheme, viewport=size)
    visit.page.set_input_files("#file", given(3))
    visit.answer()

    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (
        "#status",
        "#choose",
        "#classes .label",
        "#stages dt",
        "#card dt",
        "a",
        "button",
        "h1",
    ):
        assert contrast(visit.page, selector) >= 4.5, selector
    visit.is_quiet()
    visit.close()


def contrast(page: Any, selector: str) -> float:
    """Return the contrast of an element's text with the nearest background behind it.

    Source: WCAG 2.2, relative luminance and contrast ratio.
    """
    text, behind = page.evaluate(
        """(selector) => {
            let found = document.querySelector(selector);
            const text = getComputedStyle(found).color;
            const bar = found.parentElement.querySelector(":scope > .bar");
            if (bar) return [text, getComputedStyle(bar).backgroundColor];
            while (getComputedStyle(found).backgroundColor === "rgba(0, 0, 0, 0)") {
                found = found.parentElement;
            }
            return [text, getComputedStyle(found).backgroundColor];
        }""",
        selector,
    )
    one, other = sorted((luminance(text), luminance(behind)), reverse=True)
    return (one + 0.05) / (other + 0.05)


def luminance(color: str) -> float:
    channels = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
