"""Several devices, one bundle: from what each said to a certificate."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ..bundle import Bundle
from ..core.errors import DataError
from ..core.files import sha256_bytes
from ..devices.doctor import Finding
from ..devices.remote import Answers, Image, Session, ask, verify_there
from ..devices.remote.answers import Question
from ..drift.certificate import (
    Certificate,
    CertifiedBundle,
    CertifiedDevice,
    GoldenResult,
    certify,
)
from ..drift.report import Skipped
from ..runtimes.logits_file import LogitsFile
from ..runtimes.verify import Verification

_ROWS: Final = 256
# What of a device can change an answer; not the rest of what its doctor says, nor its paths.
_TOLD: Final = (
    "edgecls", "python", "machine", "jetson linux", "numpy", "pillow", "nvidia gpu",
    "nvidia driver", "jetpack tensorrt",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a device said: its golden samples, itself, its answers."""

    verification: Verification
    findings: Sequence[Finding]
    answers: Answers


def golden_images(bundle: Bundle, folder: Path) -> list[Image]:
    """Write the images of a bundle's golden samples into a folder.

    Raises:
        BundleError: One is damaged.
    """
    images = []
    for sample in bundle.manifest.golden:
        data = bundle.read(sample.image)
        path = folder / f"{sha256_bytes(data)}{Path(sample.image).suffix}"
        path.write_bytes(data)
        images.append(Image.of(sample.image, path))
    return images


async def ask_device(session: Session, question: Question) -> Told:
    """Let a device check a bundle, say what it is, and answer.

    Raises:
        LostError: The connection broke.
        EdgeclsError: The device cannot run the bundle.
    """
    verification = await verify_there(session, question.bundle, question.options)
    looked = await session.edgecls(["doctor", "--json"])
    findings = session.decode(looked.out, list[Finding])
    answers = await ask(session, question)
    return Told(verification=verification, findings=findings, answers=answers)


def make_certificate(
    bundle: Bundle,
    told: Mapping[str, Told],
    golden: Sequence[Image],
    images: Sequence[Image],
    folder: Path,
    *,
    min_agreement: float,
    confidence: float,
    unread: Mapping[str, str],
) -> Certificate:
    """Put together what the devices said.

    Args:
        bundle: What ran.
        told: By the device's name.
        golden: The golden samples' images.
        images: Those of a folder; without any, the golden samples alone are judged.
        folder: Takes the answers meanwhile.
        min_agreement: Percent, see ``drift.certificate``.
        confidence: Percent.
        unread: Why other images of the folder cannot be read here, by name.

    Raises:
        DataError: No image was read by all devices.
    """
    asked = list({image.sha256: image for image in [*images, *golden]}.values())
    # Under a name that every file can hold.
    called = [replace(image, name=image.sha256) for image in asked]
    files = {}
    for index, (name, said) in enumerate(told.items()):
        path = folder / f"{index}.logits"
        said.answers.write(path, called, {})
        files[name] = LogitsFile(path)
    common = sorted(
        image.sha256 for image in asked if all(image.sha256 in file for file in files.values())
    )
    if not common:
        raise DataError("no image was read by every device")
    manifest = bundle.manifest
    return certify(
        CertifiedBundle(
            sha256=bundle.sha256, model=manifest.model.source, target=manifest.target,
            precision=manifest.precision,
        ),
        common,
        len({image.sha256 for image in golden} & set(common)),
        [_device(name, told[name], file, common) for name, file in files.items()],
        min_agreement=min_agreement if images else None,
        confidence=confidence,
        skipped=[
            *(Skipped(image=name, reason=reason) for name, reason in unread.items()),
            *_skipped(images, files),
        ],
    )  # fmt: skip


def _skipped(images: Sequence[Image], files: Mapping[str, LogitsFile]) -> list[Skipped]:
    reasons = {name: dict(file.errors) for name, file in files.items()}
    found = []
    for image in images:
        said = [
            f"{name}: {errors[image.sha256]}"
            for name, errors in reasons.items()
            if image.sha256 in errors
        ]
        if said:
            found.append(Skipped(image=image.name, reason="; ".join(said)))
    return found


def _device(name: str, said: Told, file: LogitsFile, images: Sequence[str]) -> CertifiedDevice:
    answers: list[int] = []
    digest = hashlib.sha256()
    for start in range(0, len(images), _ROWS):
        rows = file.logits(images[start : start + _ROWS])
        digest.update(rows.astype("<f4").tobytes())
        answers += np.argmax(rows, axis=1).tolist()
    found = said.verification
    return CertifiedDevice(
        name=name, backend=found.backend, precision=found.precision, artefact=found.artefact,
        description=found.description,
        versions=_versions(said.findings, found.backend),
        fell_back=found.fell_back, problem=found.problem,
        golden=tuple(_golden(result) for result in msgspec.to_builtins(found.samples)),
        answers=tuple(answers), logits_sha256=digest.hexdigest(),
    )  # fmt: skip


def _versions(findings: Sequence[Finding], backend: str) -> dict[str, str]:
    names = (*_TOLD, f"backend {backend}")
    return {
        finding.name: finding.detail.partition(" (")[0]
        for finding in findings
        if finding.name in names
    }


def _golden(result: dict[str, object]) -> GoldenResult:
    fields = {name: result[name] for name in GoldenResult.__struct_fields__}
    return msgspec.convert(fields, GoldenResult)
