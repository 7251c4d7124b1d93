"""Writing bundles: all of them whole, or none."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..core.errors import UsageError
from ..core.files import atomic_directory, sha256_bytes
from .manifest import MANIFEST, MANIFEST_HASH, FileEntry, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A bundle that is to be written.

    Attributes:
        path: Its folder.
        manifest: Complete but for ``files``.
        files: The content by name inside the bundle.
    """

    path: Path
    manifest: Manifest
    files: Mapping[str, bytes]


def check_replaceable(path: Path) -> None:
    """Refuse a folder that is no bundle: writing one there would delete what is in it.

    Raises:
        UsageError: Something else is there.
    """
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_dir():
        raise UsageError(f"{path} exists and is no folder; remove it or choose another --out")
    if any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise UsageError(
            f"{path} exists and is no bundle: writing one there would delete what is in it; "
            "choose another --out"
        )


def write_bundles(drafts: Sequence[Draft]) -> tuple[Manifest, ...]:
    """Write bundles; the first takes its place when the last is complete on the disk.

    Returns:
        The manifests as they were written.

    Raises:
        UsageError: A folder that is no bundle is in the way.
        OSError: The disk is full or not writable; every old bundle is untouched.
    """
    written = []
    with contextlib.ExitStack() as stack:
        for draft in drafts:
            check_replaceable(draft.path)
            folder = stack.enter_context(atomic_directory(draft.path))
            try:
                written.append(_fill(folder, draft))
            except OSError as error:
                error.filename = str(draft.path)
                raise
    return tuple(written)


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write one bundle, as ``write_bundles`` does."""
    return write_bundles([Draft(path=path, manifest=manifest, files=files)])[0]


def _fill(folder: Path, draft: Draft) -> Manifest:
    entries = {
        name: FileEntry(size_bytes=len(data), sha256=sha256_bytes(data))
        for name, data in sorted(draft.files.items())
    }
    manifest = msgspec.structs.replace(draft.manifest, files=entries)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    for name, data in draft.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / MANIFEST).write_bytes(text)
    (folder / MANIFEST_HASH).write_text(f"{sha256_bytes(text)}  {MANIFEST}\n")
    return manifest
