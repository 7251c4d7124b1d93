"""Keeps files on a device, known by their hashes.

This file's text is run there by ``python3 -c`` before anything is installed: Python 3.8 or newer,
the standard library, nothing of ours. A file appears under its name when all of it has come and
its hash is right; what an interrupted transfer leaves has another name and is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What has not been used for a day goes, the longest unused first, while there is more than this.
LIMIT_BYTES = 4 << 30
UNUSED_S = 24 * 3600
FOLDERS = ("bundles", "images", "logits", "wheels")
BLOCK = 1 << 20

# -c puts the current folder, perhaps a checkout, on the path.
VERSIONS = """\
import sys; sys.path[:1] = [] if sys.path[0] == "" else sys.path[:1]
try: from edgecls.core.version import VERSION as version
except ImportError: version = ""
print("%d.%d.%d" % sys.version_info[:3], version)
"""


def main() -> None:
    """Do what the first argument says."""
    os.umask(0o077)
    command = sys.argv[1]
    if command == "about":
        answer(about(own="--own" in sys.argv[2:]))
    elif command == "missing":
        answer(missing(json.load(sys.stdin)))
    elif command == "receive":
        answer(receive())
    elif command == "fetch":
        fetch(sys.argv[2])
    elif command == "clear":
        answer(clear())
    else:
        sys.exit(f"no command: {command}")


def answer(found: object) -> None:
    """Print JSON."""
    sys.stdout.write(json.dumps(found))


def cache() -> Path:
    """Return the folder of edgecls's cache."""
    root = os.environ.get("EDGECLS_CACHE")
    return Path(root).absolute() if root else Path.home() / ".cache" / "edgecls"


def about(own: bool) -> dict[str, str]:
    """Say where things are, and which Python has which edgecls ("" where it has none).

    Args:
        own: Whether the Python that runs this is meant, and not the installed one.
    """
    installed = cache() / "venv" / "bin" / "python"
    python = sys.executable if own or not installed.exists() else str(installed)
    done = subprocess.run([python, "-c", VERSIONS], stdout=subprocess.PIPE, check=True)
    version, edgecls = done.stdout.decode().rstrip("\n").split(" ")
    return {"cache": str(cache()), "python": python, "version": version, "edgecls": edgecls}


def path_of(name: str) -> Path:
    """Return where a file lies.

    Raises:
        ValueError: Its name leaves the cache's folders.
    """
    parts = name.split("/")
    if parts[0] not in FOLDERS or len(parts) < 2 or {"", ".", ".."} & set(parts) or "\0" in name:
        raise ValueError(f"not a name of the store: {name!r}")
    return cache().joinpath(*parts)


def missing(wanted: list[list[str]]) -> list[str]:
    """Return the names of which no file with the right content is here; mark the others as used."""
    absent = []
    for name, sha256 in wanted:
        path = path_of(name)
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                for block in iter(lambda: file.read(BLOCK), b""):
                    digest.update(block)
            os.utime(path)
        except OSError:
            absent.append(name)
            continue
        if digest.hexdigest() != sha256:
            absent.append(name)
    prune(LIMIT_BYTES, time.time() - UNUSED_S)
    return absent


def receive() -> int:
    """Take files from stdin: of each a line of JSON, [name, sha256, size], and its bytes."""
    count = 0
    for line in iter(sys.stdin.buffer.readline, b""):
        name, sha256, size = json.loads(line)
        receive_file(name, sha256, size)
        count += 1
    return count


def receive_file(name: str, sha256: str, size: int) -> None:
    """Take a file's bytes from stdin; it appears when they are what they should be."""
    path = path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    made = Path(temporary)
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as file:
            while size:
                block = sys.stdin.buffer.read(min(size, BLOCK))
                if not block:
                    sys.exit(f"the transfer of {name} ended too early")
                digest.update(block)
                file.write(block)
                size -= len(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            sys.exit(f"{name} changed while it was sent; run it again")
        made.replace(path)
    finally:
        if made.exists():
            made.unlink()


def fetch(name: str) -> None:
    """Print a file's bytes, then remove it."""
    path = path_of(name)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    path.unlink()


def files() -> list[tuple[float, int, str]]:
    """Return when each file was last used, its size and its path."""
    found = []
    for folder in FOLDERS:
        for path in (cache() / folder).rglob("*"):
            try:
                status = path.lstat()
            except FileNotFoundError:  # another run was faster
                continue
            if not path.is_dir():
                found.append((status.st_mtime, status.st_size, str(path)))
    return sorted(found)


def prune(limit_bytes: int, before_s: float) -> tuple[int, int]:
    """Remove what was last used before a time, the oldest first, while there is too much.

    Returns:
        How many files and how many bytes went.
    """
    there = files()
    total = sum(size for _, size, _ in there)
    count = freed = 0
    for used, size, path in there:
        if total - freed <= limit_bytes or used >= before_s:
            break
        try:
            Path(path).unlink()
        except FileNotFoundError:
            continue
        count, freed = count + 1, freed + size
    return count, freed


def clear() -> dict[str, int]:
    """Remove all files, and the folders that this leaves empty."""
    count, freed = prune(-1, float("inf"))
    folders = [path for name in FOLDERS for path in (cache() / name).rglob("*") if path.is_dir()]
    for folder in [*sorted(folders, reverse=True), *(cache() / name for name in FOLDERS)]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return {"files": count, "bytes": freed}


if __name__ == "__main__":
    main()
