"""Hashes, and writes that are whole or not there at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

# Linux's, from <fcntl.h> and <linux/fs.h>.
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2

_ATTEMPTS: Final = 100
_OLD: Final = ".old.tmp"


CACHE_VARIABLE: Final = "EDGECLS_CACHE"


def cache_folder(name: str) -> Path:
    """Return where something is kept: ``$EDGECLS_CACHE/NAME`` or ``~/.cache/edgecls/NAME``."""
    root = os.environ.get(CACHE_VARIABLE)
    return (Path(root) if root else Path.home() / ".cache" / "edgecls") / name


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    Raises:
        OSError: The file could not be written; nothing of it is left.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of ``path`` when the block ends without an error.

    Raises:
        OSError: The file could not be written, nothing of it is left; or ``path`` is a device or
            pipe (``/dev/null``), which must not be replaced.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FileExistsError(errno.EEXIST, "is a device or pipe, expected a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say which it is
        raise


@contextlib.contextmanager
def atomic_directory(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``path`` when the block ends without an error.

    A kill at any moment leaves the old folder or none under ``path``; what it leaves beside it
    (``.NAME.PID.*.tmp``) is removed by the next call.

    Args:
        path: The folder to make or replace.
        durable: Whether it must survive a power cut too; slow for thousands of files.

    Raises:
        OSError: The folder could not be made or moved; the old one is untouched.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    prefix = f".{path.name}.{os.getpid()}."
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix, suffix=".tmp"))
    temporary.chmod(0o755)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if durable and file.is_file():
                _sync(file)
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(path.parent)


def remove_directory(path: Path) -> None:
    """Remove a folder so that a kill leaves it whole or not there under its name.

    What a kill leaves beside it (``.NAME.PID.*.tmp``) is removed by the next call.

    Raises:
        OSError: It could not be moved or removed.
    """
    path = path.absolute()
    _remove_leftovers(path)
    prefix = f".{path.name}.{os.getpid()}."
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix, suffix=".tmp"))
    path.rename(aside)
    shutil.rmtree(aside)


def _swap(new: Path, path: Path) -> None:
    """Put ``new`` under ``path`` in one step; what was there is left under ``new``'s name."""
    for _ in range(_ATTEMPTS):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise FileExistsError(
                f"{path} exists and is no folder; remove it or choose another name"
            )
        try:
            if path.exists():
                _exchange(new, path)
            else:
                new.rename(path)
        except OSError as error:
            # Another process made or removed the folder between the two steps.
            if error.errno not in {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY}:
                raise
        else:
            return
    raise OSError(errno.EBUSY, "other processes keep replacing it", str(path))


def _exchange(one: Path, other: Path) -> None:
    """Swap two names in one step, so that a reader finds the one or the other, never neither."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        names = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
        if not rename(*names, _RENAME_EXCHANGE):
            return
        code = ctypes.get_errno()
        if code not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}:
            raise OSError(code, os.strerror(code), str(other))
    exchange_in_steps(one, other)


def exchange_in_steps(one: Path, other: Path) -> None:
    """Swap two names where the system cannot in one step (NFS, an old libc, a sandbox).

    For a moment there is nothing under ``other``; a kill in it leaves the old folder aside, and
    the next ``atomic_directory`` puts it back.
    """
    aside = one.with_name(one.name.removesuffix(".tmp") + _OLD)
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    aside.rename(one)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary folders of processes that are gone."""
    for leftover in path.parent.glob(f".{_escaped(path.name)}.*.tmp"):
        pid = leftover.name.removeprefix(f".{path.name}.").split(".")[0]
        if not pid.isdigit() or int(pid) == os.getpid() or _alive(int(pid)):
            continue
        if leftover.name.endswith(_OLD) and not path.exists():
            leftover.rename(path)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
