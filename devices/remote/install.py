"""Puts edgecls on a device: an environment of its own, from a wheel that is sent there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ...core.errors import BadInputError, DeviceError, UsageError
from ...core.files import sha256_file
from .push import Sent, push
from .session import About, Session, last_words

_OLDEST: Final = (3, 10)
# The name is an argument there, and pip reads versions from it.
_WHEEL: Final = re.compile(r"edgecls-[A-Za-z0-9._+!]+(-[A-Za-z0-9._]+){3,4}\.whl", re.ASCII)
_EXTRA: Final = re.compile(r"[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*", re.ASCII)


async def install(
    session: Session, wheel: Path, *, extra: str = "litert", system_packages: bool = False
) -> About:
    """Install a wheel of edgecls with a backend; what was there before is replaced.

    Args:
        session: The device.
        wheel: The file.
        extra: The backend's, e.g. "litert".
        system_packages: Whether the environment sees the system's packages, as a Jetson's needs.

    Returns:
        What the device says of itself then.

    Raises:
        BadInputError: Not a wheel of edgecls.
        UsageError: The extra is not a name.
        DeviceError: No Python that is new enough, none with venv, or pip fails there.
    """
    if not _EXTRA.fullmatch(extra):
        raise UsageError(f"expected the name of an extra, as litert, found {extra!r}")
    if not _WHEEL.fullmatch(wheel.name) or not wheel.is_file():
        raise BadInputError(
            f"{wheel}: expected a wheel of edgecls, e.g. one made with: pip wheel --no-deps ."
        )
    own = session.decode(await session.store("about", "--own"), About)
    if tuple(int(part) for part in own.version.split(".")[:2]) < _OLDEST:
        raise DeviceError(
            f"{session.name}: {own.python} is Python {own.version}, expected 3.10 or newer"
        )
    # Debian's venv fails without ensurepip, and says so on stdout after half the work.
    if (await session.device.run([own.python, "-c", "import ensurepip, venv"])).code:
        raise DeviceError(
            f"{session.name}: {own.python} cannot make environments; run there: "
            "sudo apt-get install python3-venv"
        )
    digest = sha256_file(wheel)
    name = f"wheels/{digest}/{wheel.name}"
    await push(
        session,
        [Sent(name=name, sha256=digest, size_bytes=wheel.stat().st_size,
              read=lambda: [wheel.read_bytes()])],
    )  # fmt: skip
    there, venv = f"{own.cache}/{name}", f"{own.cache}/venv"
    session.tally.stage = "making an environment"
    flags = ["--system-site-packages"] if system_packages else []
    await _run(session, [own.python, "-m", "venv", *flags, venv])
    pip = [f"{venv}/bin/python", "-m", "pip", "install", "--no-input", "--quiet"]
    session.tally.stage = "installing"
    # A wheel of the same version may be another: first it alone, then what it needs.
    await _run(session, [*pip, "--force-reinstall", "--no-deps", there])
    await _run(session, [*pip, f"{there}[{extra}]"])
    found: About = session.decode(await session.store("about"), About)
    if not found.edgecls:
        raise DeviceError(f"{session.name}: {found.python} does not find edgecls after all")
    return found


class Cleared(msgspec.Struct, frozen=True):
    """What was removed from a device."""

    files: int
    bytes: int


async def clear(session: Session) -> Cleared:
    """Remove what was sent to a device: bundles, images, wheels; what is installed stays."""
    session.tally.stage = "clearing"
    found: Cleared = session.decode(await session.store("clear"), Cleared)
    return found


async def _run(session: Session, arguments: Sequence[str]) -> None:
    done = await session.device.run(arguments)
    if done.code:
        raise DeviceError(f"{session.name}: {' '.join(arguments[1:4])}: {last_words(done)}")
