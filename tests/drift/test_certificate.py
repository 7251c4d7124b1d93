"""Certificates: the verdict's rule, what may be joined, and files that somebody else made."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgecls.core.errors import DataError
from edgecls.drift import certificate_wording as wording
from edgecls.drift.certificate import (
    Certificate,
    CertifiedBundle,
    CertifiedDevice,
    GoldenResult,
    certify,
    join,
    read_certificate,
)
from edgecls.drift.report import Skipped

BUNDLE = CertifiedBundle(sha256="ab" * 32, model="m", target="raspberry-pi", precision="int8")


def device(name: str, answers: list[int], *, state: str = "passed") -> CertifiedDevice:
    return CertifiedDevice(
        name=name, backend="litert", precision="int8", artefact="model.int8.tflite",
        description={"library": "ai-edge-litert 2.3.0"}, versions={"pillow": "13.0.0"},
        fell_back=None, problem=None, answers=tuple(answers), logits_sha256=str(answers),
        golden=(
            GoldenResult(sample="golden/0.jpg", state=state, step="resize" if state == "failed"  # type: ignore[arg-type]
                         else None, logits=0.0, limit=0.01, message=""),
        ),
    )  # fmt: skip


def made(*devices: CertifiedDevice, limit: float | None = 97.0, **more: object) -> Certificate:
    images = [f"{index:064x}" for index in range(len(devices[0].answers))]
    return certify(BUNDLE, images, 1, devices, min_agreement=limit, confidence=95, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "differ", "outcome"),
    # 0.05 ** (1 / 98) = 0.9699, 0.05 ** (1 / 99) = 0.9702: Clopper and Pearson without a miss.
    [(98, 0, "undecided"), (99, 0, "passed"), (99, 1, "undecided"), (99, 20, "failed")],
)
def test_two_devices(images: int, differ: int, outcome: str) -> None:
    one, other = [0] * images, [1] * differ + [0] * (images - differ)
    found = made(device("a", one), device("b", other))
    (pair,) = found.pairs

    assert found.outcome == outcome
    assert found.exit_code == {"passed": 0, "failed": 1, "undecided": 5}[outcome]
    assert pair.agreed == images - differ
    assert pair.identical == (differ == 0)
    assert pair.check is not None
    if not differ:
        assert pair.check.lower == pytest.approx(100 * 0.05 ** (1 / images))
        assert found.images_needed == (99 if outcome == "undecided" else None)


def test_pairs_share_the_level_at_which_they_fail() -> None:
    """P(13 or more of 200 differ | 3.5 %) = 0.025: below 0.05, not below a third of it."""
    same, apart = [0] * 200, [1] * 13 + [0] * 187
    alone = made(device("a", same), device("b", apart), limit=96.5)
    three = made(device("a", same), device("b", apart), device("c", same), limit=96.5)

    assert alone.outcome == "failed"
    assert three.outcome == "undecided"
    assert [pair.agreed for pair in three.pairs] == [187, 200, 187]


def test_golden_samples_decide_first_and_alone_without_images() -> None:
    broken = device("b", [0] * 200, state="failed")

    assert made(device("a", [0] * 200), broken).outcome == "failed"
    assert "computes" not in wording.sentence(made(device("a", [0] * 200), broken))
    alone = made(device("a", [0]), device("b", [1]), limit=None)
    assert (alone.outcome, alone.pairs[0].check) == ("passed", None)
    assert "not compared" in wording.sentence(alone)
    assert made(device("a", [0])).outcome == "passed"


def test_passed_without_some_images_is_exit_code_4() -> None:
    found = made(device("a", [0] * 99), device("b", [0] * 99),
                 skipped=[Skipped(image="x", reason="b: cut short")])  # fmt: skip

    assert (found.outcome, found.exit_code) == ("passed", 4)


def test_a_file_comes_back_and_joins(tmp_path: Path) -> None:
    file = tmp_path / "theirs.json"
    theirs = made(device("kitchen", [0] * 120), device("here", [0] * 120))
    file.write_bytes(theirs.to_json())
    mine = made(device("here", [1] * 60 + [0] * 60))

    assert read_certificate(file) == theirs
    both = join(mine, read_certificate(file), file)
    assert [found.name for found in both.devices] == ["kitchen", "here (theirs.json)", "here"]
    assert [pair.agreed for pair in both.pairs] == [120, 60, 60]
    assert both.outcome == "failed"
    assert "kitchen and here; here (theirs.json) and here" in wording.sentence(both)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    mine = made(device("a", [0] * 3))
    with pytest.raises(DataError, match="another bundle"):
        join(mine, msgspec.structs.replace(
            mine, bundle=msgspec.structs.replace(BUNDLE, sha256="cd" * 32)), path)  # fmt: skip
    with pytest.raises(DataError, match="2 of its 5 are not here, 0 of these"):
        join(mine, made(device("b", [0] * 5)), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "expected edgecls-certificate 1, found other 1"),
        ({"schema_version": 2}, "found edgecls-certificate 2"),
        ({"images": ()}, "not in order"),
        ({"images": ("b", "a", "c")}, "not in order"),
        ({"images": ("a", "b")}, "a has 3 answers to 2 images"),
    ],
)
def test_a_file_that_contradicts_itself(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(msgspec.structs.replace(made(device("a", [0] * 3)), **change).to_json())

    with pytest.raises(DataError, match=message):
        read_certificate(path)


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b"[1]", b'{"extra": 1}'])
def test_a_file_that_is_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(data)

    with pytest.raises(DataError, match="not a certificate"):
        read_certificate(path)
