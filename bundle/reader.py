"""Reading a bundle: a folder, or that folder zipped. Every byte is verified before it is used."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from ..core.errors import BundleError
from ..core.files import sha256_bytes
from ..core.values import ArtefactFormat, Precision
from ..targets import TARGETS
from .manifest import MANIFEST, MANIFEST_HASH, SCHEMA_VERSION, Artefact, Manifest

MAX_MANIFEST_BYTES: Final = 64 << 20

# Weights pack to a third at best; zeros to a thousandth.
_RATIO: Final = 100
_PACKED: Final = 1 << 20

# What zipfile raises on damage; RuntimeError for a password, NotImplementedError for a method.
_ZIP_ERRORS: Final = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)


class _Version(msgspec.Struct):
    schema_version: int


class Bundle:
    """A bundle whose manifest was verified; files are verified as they are read.

    Attributes:
        path: The folder or the zip file.
        manifest: What it says of itself.
        sha256: Hash of the manifest, which holds the hash of everything else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._source = _Zip(path) if path.is_file() else _Folder(path)
        except OSError as error:
            raise BundleError(f"{path}: not a bundle: {error.strerror}") from error
        data = self._source.read(MANIFEST, MAX_MANIFEST_BYTES)
        expected = self._source.read(MANIFEST_HASH, 1024).decode("ascii", "replace").split()
        self.sha256 = sha256_bytes(data)
        self._manifest_bytes = data
        if not expected or expected[0] != self.sha256:
            raise BundleError(
                f"{path}: {MANIFEST} does not match {MANIFEST_HASH}; export the bundle again"
            )
        self.manifest = _decode(path, data)
        self._check_names()

    def read(self, name: str) -> bytes:
        """Return the bytes of a file that the manifest lists.

        Raises:
            BundleError: It is not listed, is missing, or is not what was written.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: {name!r} is not listed in {MANIFEST}")
        data = self._source.read(name, entry.size_bytes)
        if len(data) != entry.size_bytes or sha256_bytes(data) != entry.sha256:
            raise BundleError(
                f"{self.path}: {name} is not the file that was exported (expected sha256 "
                f"{entry.sha256[:12]}..., {entry.size_bytes} bytes); copy the bundle again"
            )
        return data

    def unlisted(self) -> dict[str, bytes]:
        """Return the files that the manifest cannot list, itself and its hash, the manifest last.

        A copy that gets them after the others is no bundle before it is complete.
        """
        digest = f"{self.sha256}  {MANIFEST}\n".encode()
        return {MANIFEST_HASH: digest, MANIFEST: self._manifest_bytes}

    def verify(self) -> None:
        """Read every file and compare its hash.

        Raises:
            BundleError: A file is missing, changed, or not listed.
        """
        for name in self.manifest.files:
            self.read(name)
        strangers = self._source.names() - set(self.manifest.files) - {MANIFEST, MANIFEST_HASH}
        if strangers:
            raise BundleError(
                f"{self.path}: {len(strangers)} file(s) that the manifest does not list, "
                f"e.g. {min(strangers)!r}; remove them"
            )

    def find(
        self, file_format: ArtefactFormat, precision: Precision | None = None
    ) -> Artefact | None:
        """Return the first artefact of a format and, where given, a precision."""
        for artefact in self.manifest.artefacts:
            if artefact.format == file_format and precision in (None, artefact.precision):
                return artefact
        return None

    def _check_names(self) -> None:
        manifest = self.manifest
        for name in manifest.files:
            parts = PurePosixPath(name).parts
            if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
                raise BundleError(f"{self.path}: {name!r} leaves the bundle")
        used = [artefact.path for artefact in manifest.artefacts]
        for artefact in manifest.artefacts:
            if (artefact.calibration_cache is None) == (artefact.format == "onnx-calibrated"):
                raise BundleError(
                    f"{self.path}: {artefact.path} is {artefact.format}: expected a calibration "
                    "cache with onnx-calibrated and with nothing else; export the bundle again"
                )
            used += [artefact.calibration_cache] if artefact.calibration_cache else []
        for sample in manifest.golden:
            used += [sample.image, sample.pixels, *sample.logits.values()]
        for name in used:
            if name not in manifest.files:
                raise BundleError(f"{self.path}: {name!r} is used but not listed in {MANIFEST}")
        if manifest.target not in TARGETS:
            raise BundleError(
                f"{self.path}: it is for target {manifest.target!r}, this edgecls knows "
                f"{', '.join(TARGETS)}; upgrade edgecls"
            )
        if not manifest.artefacts:
            raise BundleError(f"{self.path}: there is no artefact in it")
        for names in (manifest.labels, manifest.synsets):
            if names is not None and len(names) != manifest.num_classes:
                raise BundleError(
                    f"{self.path}: {len(names)} labels for {manifest.num_classes} classes"
                )


def _decode(path: Path, data: bytes) -> Manifest:
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path}: schema version {version}, this edgecls reads {SCHEMA_VERSION}; "
                + ("upgrade edgecls" if version > SCHEMA_VERSION else "export the bundle again")
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {MANIFEST} is not valid: {error}") from error


class _Folder:
    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise BundleError(
                f"{path}: expected a bundle (a folder or its zip), found nothing there"
            )
        if not (path / MANIFEST).is_file():
            inner = sorted(child.name for child in path.iterdir() if (child / MANIFEST).is_file())
            hint = f"; did you mean {path / inner[0]}?" if inner else ""
            raise BundleError(f"{path}: not a bundle: it has no {MANIFEST}{hint}")
        self._root = path

    def read(self, name: str, limit_bytes: int) -> bytes:
        path = self._root / name
        try:
            # A link could lead anywhere, a pipe could wait forever.
            if not path.resolve().is_relative_to(self._root.resolve()):
                raise BundleError(f"{self._root}: {name!r} leaves the bundle")
            if not path.is_file():
                raise BundleError(f"{self._root}: {name} is missing; copy the bundle again")
            with path.open("rb") as file:
                return file.read(limit_bytes + 1)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise BundleError(f"{path}: {error}") from error

    def names(self) -> set[str]:
        return {
            file.relative_to(self._root).as_posix()
            for file in self._root.rglob("*")
            if not file.is_dir()
        }


class _Zip:
    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except _ZIP_ERRORS as error:
            raise BundleError(f"{path}: not a bundle: neither a folder nor a zip file") from error
        self._path = path
        entries = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        names = [entry.filename.rpartition("/") for entry in entries]
        roots = [
            folder + slash
            for folder, slash, name in names
            if name == MANIFEST and "/" not in folder
        ]
        if len(roots) != 1:
            raise BundleError(f"{path}: not a bundle: it has {len(roots)} {MANIFEST}, expected one")
        self._entries = {
            entry.filename.removeprefix(roots[0]): entry
            for entry in entries
            if entry.filename.startswith(roots[0])
        }

    def read(self, name: str, limit_bytes: int) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise BundleError(f"{self._path}: {name} is missing; zip the bundle again")
        # What unpacks to more than it says, or to far more than its packed size, is not unpacked.
        if entry.file_size > min(limit_bytes, _PACKED + _RATIO * entry.compress_size):
            raise BundleError(
                f"{self._path}: {name} says that it unpacks to {entry.file_size} bytes, which is "
                "not what was exported; zip the bundle again"
            )
        try:
            with self._zip.open(entry) as file:
                return file.read(limit_bytes + 1)
        except _ZIP_ERRORS as error:
            raise BundleError(f"{self._path}: {name} cannot be read: {error}") from error

    def names(self) -> set[str]:
        return set(self._entries)
