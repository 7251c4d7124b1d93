"""Whether several devices answer alike: what each was, what it answered, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Final, Literal

import msgspec

from ..core.errors import DataError
from ..core.text import as_utf8
from ..core.version import VERSION
from .gate import Check, Outcome, check_share
from .report import Skipped

FORMAT: Final = "edgecls-certificate"
SCHEMA_VERSION: Final = 1


class GoldenResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of one of the bundle's golden samples on a device.

    Attributes:
        sample: The image's name in the bundle.
        state: "warning" where another decoder moved a pixel by one code.
        step: The first step that gave something else than at export; None where none did.
        logits: max|a-b| / max|a| of the logits for the stored pixels.
        limit: The largest that is allowed.
        message: What was expected and found; empty where all is well.
    """

    sample: str
    state: Literal["passed", "warning", "failed"]
    step: str | None
    logits: float
    limit: float
    message: str


class CertifiedDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device, and what it answered.

    Attributes:
        name: As the user called it.
        backend: What ran the bundle.
        precision: Of what ran.
        artefact: The bundle's file that ran.
        description: Of the backend: library, version, device.
        versions: What the device says of itself: edgecls, Python, machine, packages.
        fell_back: Why it is a simulation, else None.
        problem: What is wrong with the device though its answers are right, else None.
        golden: One result for each golden sample.
        answers: The top-1 class of each image, in the order of the certificate's ``images``.
        logits_sha256: Of the logits of these images in this order, float32, little-endian: equal
            hashes are equal answers, bit for bit.
    """

    name: str
    backend: str
    precision: str
    artefact: str
    description: dict[str, str]
    versions: dict[str, str]
    fell_back: str | None
    problem: str | None
    golden: tuple[GoldenResult, ...]
    answers: tuple[int, ...]
    logits_sha256: str

    @property
    def passed(self) -> bool:
        """Whether no golden sample failed, and nothing is wrong with the device."""
        return self.problem is None and all(found.state != "failed" for found in self.golden)


class CertifiedBundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ran on every device.

    Attributes:
        sha256: Of its manifest, which holds the hash of every other file.
        model: Its source, as the manifest has it.
        target: What it was exported for.
        precision: Of its primary artefact.
    """

    sha256: str
    model: str
    target: str
    precision: str


class CertifiedPair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two of the devices, by their place.

    Attributes:
        first: From 0.
        second: Larger than ``first``.
        agreed: Images with the same top-1 answer.
        identical: Whether all their logits are equal, bit for bit.
        check: Their agreement against the limit; None where the golden samples alone were asked.
    """

    first: int
    second: int
    agreed: int
    identical: bool
    check: Check | None


class Certificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bundle on several devices.

    Attributes:
        bundle: What ran.
        images: SHA-256 of the images' files, sorted: those of the golden samples, and those of a
            folder. All devices have read them.
        golden_images: How many of them are the golden samples'.
        skipped: Images of the folder that a device could not read.
        devices: What answered.
        pairs: Every two of them.
        min_agreement: The limit in percent; None where there was no folder of images.
        confidence: Of the verdict, percent.
        outcome: Failed where a device fails its golden samples or a pair is shown to agree less
            than the limit; passed where every pair is shown to agree more; undecided else.
        edgecls: The version that wrote it.
    """

    bundle: CertifiedBundle
    images: tuple[str, ...]
    golden_images: int
    skipped: tuple[Skipped, ...]
    devices: tuple[CertifiedDevice, ...]
    pairs: tuple[CertifiedPair, ...]
    min_agreement: float | None
    confidence: float
    outcome: Outcome
    edgecls: str = VERSION
    format: str = FORMAT
    schema_version: int = SCHEMA_VERSION

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 5 undecided; 4 where it passed without some of the images."""
        code = {"passed": 0, "failed": 1, "undecided": 5}[self.outcome]
        return 4 if code == 0 and self.skipped else code

    @property
    def images_needed(self) -> int | None:
        """How many images would decide every open pair; None where none is known."""
        needed = [pair.check.images_needed for pair in self.pairs if pair.check is not None
                  and pair.check.outcome == "undecided"]  # fmt: skip
        known = [count for count in needed if count is not None]
        return max(known) if known and len(known) == len(needed) else None

    def to_json(self) -> bytes:
        """Return it as JSON, indented, ending with a newline; the same every time."""
        devices = tuple(
            msgspec.structs.replace(found, name=as_utf8(found.name)) for found in self.devices
        )
        named = msgspec.structs.replace(self, devices=devices)
        return msgspec.json.format(msgspec.json.encode(named), indent=1) + b"\n"


def certify(
    bundle: CertifiedBundle,
    images: Sequence[str],
    golden_images: int,
    devices: Sequence[CertifiedDevice],
    *,
    min_agreement: float | None,
    confidence: float,
    skipped: Sequence[Skipped] = (),
) -> Certificate:
    """Judge whether devices answer alike.

    Every pair passes at the full level and fails at its share of it, as the checks of a drift
    verdict do: with probability ``confidence`` no pair that agrees less than the limit passes all,
    and no pair that agrees more fails.

    Args:
        bundle: What ran.
        images: SHA-256 of the files, sorted.
        golden_images: How many of them are golden samples.
        devices: One or more, each with an answer for every image.
        min_agreement: The least share of equal top-1 answers, percent; None judges the golden
            samples alone.
        confidence: Percent.
        skipped: Images that were left out.
    """
    couples = list(combinations(range(len(devices)), 2))
    alpha = 1 - confidence / 100
    pairs = []
    for first, second in couples:
        one, other = devices[first], devices[second]
        agreed = sum(a == b for a, b in zip(one.answers, other.answers, strict=True))
        check = None
        if min_agreement is not None:
            check = check_share(agreed, len(images), min_agreement, alpha, alpha / len(couples))
        pairs.append(
            CertifiedPair(
                first=first, second=second, agreed=agreed, check=check,
                identical=one.logits_sha256 == other.logits_sha256,
            )
        )  # fmt: skip
    return Certificate(
        bundle=bundle, images=tuple(images), golden_images=golden_images, skipped=tuple(skipped),
        devices=tuple(devices), pairs=tuple(pairs), min_agreement=min_agreement,
        confidence=confidence, outcome=_outcome(devices, pairs),
    )  # fmt: skip


def _outcome(devices: Sequence[CertifiedDevice], pairs: Sequence[CertifiedPair]) -> Outcome:
    outcomes = {pair.check.outcome for pair in pairs if pair.check is not None}
    if "failed" in outcomes or not all(found.passed for found in devices):
        return "failed"
    return "undecided" if "undecided" in outcomes else "passed"


def read_certificate(path: Path) -> Certificate:
    """Read a certificate that somebody else may have made.

    Raises:
        DataError: It is none, or contradicts itself.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Certificate)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a certificate of edgecls: {error}") from error
    if (found.format, found.schema_version) != (FORMAT, SCHEMA_VERSION):
        raise DataError(
            f"{path}: expected {FORMAT} {SCHEMA_VERSION}, found {found.format} "
            f"{found.schema_version}; use the edgecls that made it"
        )
    if list(found.images) != sorted(set(found.images)) or not found.images:
        raise DataError(f"{path}: its images are not in order; make it again")
    for device in found.devices:
        if len(device.answers) != len(found.images):
            raise DataError(
                f"{path}: {device.name} has {len(device.answers)} answers to "
                f"{len(found.images)} images; make it again"
            )
    return found


def join(found: Certificate, other: Certificate, path: Path) -> Certificate:
    """Return the certificate of the devices of both, judged by the limits of the first.

    Args:
        found: Made now.
        other: Made by somebody, of other devices.
        path: The other's file, for messages.

    Raises:
        DataError: They are of different bundles or images.
    """
    if found.bundle.sha256 != other.bundle.sha256:
        raise DataError(
            f"{path}: it is of another bundle, {other.bundle.sha256[:16]}, not of "
            f"{found.bundle.sha256[:16]}; use the very bundle that it was made with"
        )
    if found.images != other.images:
        missing = len(set(other.images) - set(found.images))
        added = len(set(found.images) - set(other.images))
        raise DataError(
            f"{path}: it is of other images: {missing} of its {len(other.images)} are not here, "
            f"{added} of these are not there; give the same --data, --images and --seed"
        )
    here = {device.name for device in found.devices}
    theirs = [
        msgspec.structs.replace(device, name=f"{device.name} ({path.name})")
        if device.name in here
        else device
        for device in other.devices
    ]
    return certify(
        found.bundle, found.images, found.golden_images, [*theirs, *found.devices],
        min_agreement=found.min_agreement, confidence=found.confidence, skipped=found.skipped,
    )  # fmt: skip
