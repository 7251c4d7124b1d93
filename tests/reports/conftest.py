"""Reports with everything in them, and a real browser to open them in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecls.core.preprocess import PRESETS
from edgecls.drift import Budgets, DriftReport, Skipped, compare, judge
from edgecls.drift.certificate import (
    Certificate,
    CertifiedBundle,
    CertifiedDevice,
    GoldenResult,
    certify,
)
from edgecls.drift.explanation import Explanation, LayerFinding, StageFinding, cost_of
from edgecls.drift.matrix import AgreementCounts, Matrix
from edgecls.drift.paired import Paired
from edgecls.drift.report import Latency, Provenance

HOSTILE = 'x" onload="alert(1)"><script>alert(1)</script>&\x1b[31m\x00\u202e.png'


def write_photo(path: Path, seed: int, size: tuple[int, int] = (320, 240)) -> None:
    """Write a smooth image of its own colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codes = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(codes).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)


def make_report(
    folder: Path | None = None, *, classes: int = 10, images: int = 600, lost: float = 0.06,
    truth: bool = True, budgets: Budgets | None = None, **changes: Any,
) -> DriftReport:  # fmt: skip
    """Return the report of two models with random logits, one of them damaged."""
    random = np.random.default_rng(3)
    right = random.integers(0, classes, images)
    reference = random.normal(size=(images, classes)).astype(np.float32)
    reference[np.arange(images), right] += 4
    candidate = reference + random.normal(size=reference.shape).astype(np.float32) / 4
    damaged = random.random(images) < lost
    candidate[damaged, (right[damaged] + 1) % classes] += 6
    names = [f"{right[index]}/{index:04d}.jpg" for index in range(images)]
    if folder is not None:
        for seed, name in enumerate(names):
            write_photo(folder / name, seed)
    metrics = compare(names, reference, candidate, right.tolist() if truth else None)
    fields: dict[str, Any] = {
        "reference": "timm:resnet18",
        "candidate": "out/raspberry-pi",
        "backends": {"reference": "torch", "candidate": "litert"},
        "truth": "ground truth from labels.csv" if truth else None,
        "metrics": metrics,
        "verdict": judge(metrics, budgets or Budgets(min_agreement=97)),
        "labels": tuple(f"class {index}" for index in range(classes)),
        "provenance": Provenance(preprocess=PRESETS["imagenet"], data="photos", seed=0),
        "latency": {"candidate": Latency(images=50, median_ms=2.051, p90_ms=2.2)},
    }
    return DriftReport(**{**fields, **changes})


def hostile_report() -> DriftReport:
    """Return a report in which every text that comes from outside tries to break out."""
    found = make_report(images=40, budgets=Budgets(max_drop=1, min_agreement=97))
    flips = [
        type(flip)(**{**{name: getattr(flip, name) for name in flip.__struct_fields__},
                      "image": HOSTILE})
        for flip in found.metrics.flips
    ]  # fmt: skip
    fields = {name: getattr(found.metrics, name) for name in found.metrics.__struct_fields__}
    metrics = type(found.metrics)(**{**fields, "flips": tuple(flips)})
    return make_report(
        images=40, metrics=metrics, candidate=HOSTILE, reference=HOSTILE, truth=False,
        labels=(HOSTILE,) * 10, skipped=(Skipped(image=HOSTILE, reason=HOSTILE),),
        backends={"reference": HOSTILE, "candidate": HOSTILE},
        verdict=judge(metrics, Budgets(max_drop=1, min_agreement=97)),
    )  # fmt: skip


@pytest.fixture(name="make")
def _make() -> Callable[..., DriftReport]:
    return make_report


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the images that ``make`` names, where nothing else is asked of it."""
    folder = tmp_path_factory.mktemp("photos")
    make_report(folder)
    return folder


@pytest.fixture
def hostile() -> DriftReport:
    return hostile_report()


@pytest.fixture(scope="session")
def builders() -> dict[str, Callable[[], DriftReport | Matrix | Explanation | Certificate]]:
    """Return what makes each kind of page."""
    budgets = Budgets(max_drop=1, max_class_drop=10, max_ece_rise=2, min_agreement=95)
    return {
        "full": lambda: make_report(budgets=budgets),
        "thousand": lambda: make_report(classes=1000),
        "hostile": hostile_report,
        "matrix": make_matrix,
        "explanation": make_explanation,
        "certificate": make_certificate,
    }


def make_explanation() -> Explanation:
    """Return a drop that one of two stages explains, with layers and a hostile note."""
    costly, free = cost_of(Paired(40, 4, 400)), cost_of(Paired(3, 3, 400))
    layer = LayerFinding(
        name=HOSTILE, operator="Conv", error=0.41, inputs_error=0.02, planned_error=0.03,
        scale=0.5, planned_scale=None, departs=True,
    )  # fmt: skip
    return Explanation(
        reference="timm:resnet18", candidate=HOSTILE, measure="top1", images=400,
        reference_percent=87.25, candidate_percent=78.25, total=cost_of(Paired(43, 7, 400)),
        stages=(
            StageFinding(stage="channel order", expected="RGB", found="BGR", cost=costly,
                         alone=costly),
            StageFinding(stage="quantization", expected="float32", found="int8", cost=free),
        ),
        same=("orientation", "normalisation"), layers=(layer,), notes=(HOSTILE,), left_out=2,
    )  # fmt: skip


@pytest.fixture
def certificate() -> Certificate:
    return make_certificate()


@pytest.fixture
def explanation() -> Explanation:
    return make_explanation()


@pytest.fixture
def matrix() -> Matrix:
    return make_matrix()


def make_certificate() -> Certificate:
    """Return three devices, one of which decodes otherwise and one of which has a nasty name."""
    devices = [
        CertifiedDevice(
            name=name, backend="litert", precision="int8", artefact="model.int8.tflite",
            description={"library": f"ai-edge-litert 2.3.{place}"}, fell_back=None, problem=None,
            versions={"edgecls": "0.1.0", "pillow": f"1{place}.0.0", "machine": HOSTILE},
            golden=(
                GoldenResult(
                    sample="golden/0.jpg", state="failed" if place == 2 else "passed",
                    step="decode" if place == 2 else None, logits=0.0, limit=0.01,
                    message="12 of 150528 pixel codes differ by up to 3" if place == 2 else "",
                ),
            ),
            answers=tuple(range(200)) if place < 2 else (1, *range(1, 200)),
            logits_sha256=f"{min(place, 1):064x}",
        )
        for place, name in enumerate(("here", HOSTILE, "kitchen"))
    ]  # fmt: skip
    return certify(
        CertifiedBundle(
            sha256="ab" * 32, model="timm:resnet18", target="raspberry-pi", precision="int8"
        ),
        [f"{index:064x}" for index in range(200)], 4, devices, min_agreement=97, confidence=95,
        skipped=[Skipped(image=HOSTILE, reason=f"kitchen: {HOSTILE}")],
    )  # fmt: skip


def make_matrix() -> Matrix:
    """Return the agreement of three sources."""
    counts = AgreementCounts()
    answers = np.random.default_rng(1).integers(0, 3, (3, 40))
    counts.add([*answers])
    return Matrix(
        sources=("pi.logits", HOSTILE, "out/jetson"),
        backends=("litert (recorded)", HOSTILE, "onnxruntime (simulated)"),
        images=40,
        pairs=counts.result(),
        skipped=(Skipped(image=HOSTILE, reason="damaged"),),
    )


class Browser:
    """Chromium without a window, spoken to in its DevTools protocol through a pipe."""

    def __init__(self, profile: Path) -> None:
        names = ("chromium", "chromium-browser", "google-chrome")
        program = next(filter(None, map(shutil.which, names)), None)
        if program is None:
            pytest.fail(f"expected one of {', '.join(names)}, found none; apt-get install chromium")
        from_us, to_browser = os.pipe(), os.pipe()
        command = (
            f'exec "$0" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage '
            f'--no-first-run --hide-scrollbars --remote-debugging-pipe --user-data-dir="$1" '
            f"about:blank 3<&{from_us[0]} 4>&{to_browser[1]} >/dev/null 2>&1"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command, program, str(profile)],
            pass_fds=(from_us[0], to_browser[1]),
        )
        os.close(from_us[0])
        os.close(to_browser[1])
        self._to = os.fdopen(from_us[1], "wb", buffering=0)
        self._from = os.fdopen(to_browser[0], "rb", buffering=0)
        self._rest = b""
        self._sent = 0
        self.session = ""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; events that come before it are kept."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == self._sent:
                assert "error" not in found, found
                return found["result"]

    def wait(self, event: str) -> None:
        """Read until an event has come."""
        while all(found["method"] != event for found in self.events):
            self._receive()

    def open(self, url: str, *, width: int, scheme: str) -> None:
        """Open a page in a new tab, ``width`` px wide, in a light or a dark colour scheme."""
        self.session = ""
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                  deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.events = []
        self.call("Page.navigate", url=url)
        self.wait("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression gives in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"]["value"]

    def requested(self) -> list[str]:
        """Return the addresses that the page asked for."""
        events = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in events]

    def complaints(self) -> list[Any]:
        """Return what stands in the page's console."""
        kinds = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
        return [event["params"] for event in self.events if event["method"] in kinds]

    def close(self) -> None:
        """End the browser."""
        self.session = ""
        self.call("Browser.close")
        self._process.wait(20)
        self._to.close()
        self._from.close()

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = self._from.read(1 << 16)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        if "method" in found:
            self.events.append(found)
        return found


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()
