"""Asks a device about images, a chunk at a time, so that a broken connection costs one chunk."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ...bundle import Bundle
from ...core.errors import DataError, DeviceError
from ...core.files import cache_folder, sha256_bytes
from ...runtimes.logits_file import LogitsFile, LogitsHeader, write_logits
from ...runtimes.prediction import Ranked
from .kept import Kept
from .push import Image, lacking, push_bundle, send
from .session import Session
from .transport import OUTPUT_LIMIT_BYTES, LostError

# One load of the model per chunk against what a broken connection costs.
CHUNK: Final = 128
_HEADER_BYTES: Final = 64 << 20
_LINE_BYTES: Final = 1024


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``predict --json`` prints of an image; attributes as ``Prediction``, or an error."""

    image: str
    topk: tuple[Ranked, ...] = ()
    speed_ms: dict[str, float] = {}
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a device is asked.

    Attributes:
        bundle: What runs.
        images: On what.
        topk: Classes per image.
        options: More of ``edgecls predict``, e.g. ("--threads", "2").
        batch: Images per chunk.
    """

    bundle: Bundle
    images: Sequence[Image]
    topk: int = 5
    options: Sequence[str] = ()
    batch: int = CHUNK

    def chunks(self) -> Iterator[tuple[str, list[Image]]]:
        """Yield each chunk with its key; of equal files one is asked about."""
        images = list({image.sha256: image for image in self.images}.values())
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            yield sha256_bytes(b"".join(image.sha256.encode() for image in part))[:32], part


class Answers:
    """What a device answered.

    Attributes:
        device: Its name.
        header: What answered; None where no image could be read there.
    """

    def __init__(
        self, device: str, lines: Mapping[str, Line], files: Sequence[LogitsFile], kept: Kept
    ) -> None:
        self.device = device
        self.header: LogitsHeader | None = files[0].header if files else None
        self._lines = lines
        self._files = files
        self._kept = kept

    def lines(self, images: Sequence[Image]) -> Iterator[Line]:
        """Yield what it says of each image, which bears its name of here."""
        for image in images:
            yield msgspec.structs.replace(self._lines[image.sha256], image=image.name)

    def write(self, path: Path, images: Sequence[Image], errors: Mapping[str, str]) -> None:
        """Write all as one file of logits, under the names of here.

        Args:
            path: The file.
            images: In the file's order.
            errors: Why others could not be read here, by name.

        Raises:
            DataError: There are no logits.
        """
        if self.header is None:
            reason = next((line.error for line in self._lines.values()), "there is none")
            raise DataError(f"{self.device}: no image could be read there, e.g.: {reason}")
        where = {digest: file for file in self._files for _, digest in file.images}
        with write_logits(path, self.header) as writer:
            for image in images:
                file = where.get(image.sha256)
                if file is None:
                    writer.add_error(image.name, self._lines[image.sha256].error)
                else:
                    writer.add(image.name, image.sha256, file.logits([image.sha256])[0].tolist())
            for name, reason in errors.items():
                writer.add_error(name, reason)

    def forget(self) -> None:
        """Remove what was kept for going on: a new run asks the device anew."""
        self._kept.forget()


async def ask(session: Session, question: Question, folder: Path | None = None) -> Answers:
    """Return what the device answers; what an earlier, broken run got is not asked again.

    Args:
        session: The device.
        question: What to ask.
        folder: Where answers are kept until all are there; None is the cache.

    Raises:
        LostError: The connection broke; finished chunks are kept.
        EdgeclsError: The device cannot run the bundle.
    """
    about = await session.about()
    run = [
        session.identity, question.bundle.sha256, list(question.options), question.topk,
        about.edgecls, about.version, about.python,
    ]  # fmt: skip
    key = sha256_bytes(msgspec.json.encode(run))[:32]
    kept = Kept((folder or cache_folder("remote")) / key)
    chunks = list(question.chunks())
    tally = session.tally
    tally.total = sum(len(images) for _, images in chunks)
    tally.done = sum(len(images) for chunk, images in chunks if kept.lines(chunk) is not None)
    unanswered = [(chunk, images) for chunk, images in chunks if kept.lines(chunk) is None]
    if unanswered:
        place = await push_bundle(session, question.bundle)
        tally.stage = "comparing images"
        absent = await lacking(
            session, [image.sent for _, images in unanswered for image in images]
        )
    for chunk, images in unanswered:
        await send(session, [image.sent for image in images if image.sent.name in absent])
        tally.stage = "answering"
        kept.keep(chunk, *await _ask(session, question, place, images))
        tally.done += len(images)
    return _collect(session, kept, [chunk for chunk, _ in chunks])


async def _ask(
    session: Session, question: Question, place: str, images: Sequence[Image]
) -> tuple[bytes, bytes | None]:
    """Return a chunk's lines and its file of logits."""
    about = await session.about()
    logits = f"logits/{secrets.token_hex(16)}"
    classes = question.bundle.manifest.num_classes
    done = await session.edgecls(
        [
            "predict", place, *(f"{about.cache}/{image.sent.name}" for image in images),
            "--json", "--topk", str(question.topk), "--save-logits", f"{about.cache}/{logits}",
            *question.options,
        ],
        codes=(0, 4),
        limit_bytes=OUTPUT_LIMIT_BYTES + len(images) * min(question.topk, classes) * _LINE_BYTES,
    )  # fmt: skip
    found = [session.decode(line, Line) for line in done.out.splitlines()]
    if len(found) != len(images):
        raise session.failure(done)
    lines = [
        msgspec.structs.replace(line, image=image.sha256)
        for line, image in zip(found, images, strict=True)
    ]
    unread = [image for line, image in zip(lines, images, strict=True) if line.error]
    # Not their fault where somebody cleared the device.
    if await lacking(session, [image.sent for image in unread]):
        raise LostError("images were removed there meanwhile")
    data = None
    if len(unread) < len(images):
        limit = _HEADER_BYTES + len(images) * (4 * classes + _LINE_BYTES)
        data = await session.store("fetch", logits, limit_bytes=limit)
    return b"\n".join(map(msgspec.json.encode, lines)), data


def _collect(session: Session, kept: Kept, chunks: Sequence[str]) -> Answers:
    """Put the chunks together.

    Raises:
        DeviceError: They do not fit: the device was changed between; nothing is kept.
    """
    lines: dict[str, Line] = {}
    files = []
    for chunk in chunks:
        found = [session.decode(line, Line) for line in (kept.lines(chunk) or b"").splitlines()]
        lines |= {line.image: line for line in found}
        file = kept.logits(chunk)
        there = {digest for _, digest in file.images} if file is not None else set()
        if there != {line.image for line in found if not line.error}:
            kept.forget()
            raise DeviceError(f"{session.name}: it answered about other images; run it again")
        if file is not None:
            files.append(file)
    headers = {msgspec.json.encode(file.header) for file in files}
    if len(headers) > 1:
        kept.forget()
        raise DeviceError(
            f"{session.name}: what runs there changed while it was away; run it again, it begins "
            "anew"
        )
    return Answers(session.name, lines, files, kept)
