"""Writing a bundle: whole, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..core.files import atomic_directory, sha256_bytes
from .manifest import MANIFEST, MANIFEST_HASH, FileEntry, Manifest


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a bundle to the folder ``path``, which it replaces.

    Args:
        path: The bundle's folder.
        manifest: Complete but for ``files``, which is filled in here.
        files: The content by name inside the bundle.

    Returns:
        The manifest as it was written.

    Raises:
        OSError: The disk is full or not writable; the old bundle is untouched.
    """
    entries = {
        name: FileEntry(size_bytes=len(data), sha256=sha256_bytes(data))
        for name, data in sorted(files.items())
    }
    manifest = msgspec.structs.replace(manifest, files=entries)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    with atomic_directory(path) as folder:
        for name, data in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        (folder / MANIFEST).write_bytes(text)
        (folder / MANIFEST_HASH).write_text(f"{sha256_bytes(text)}  {MANIFEST}\n")
    return manifest
