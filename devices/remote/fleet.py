"""Several devices at once; one that goes away is waited for, and the others do not wait."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ...core.errors import DeviceError, EdgeclsError
from .address import SshTarget, Target
from .local import LocalDevice
from .session import Session, Tally
from .ssh import connect_ssh
from .transport import Device, LostError

T = TypeVar("T")

# Seconds before each new attempt to reach a device that went away, a minute in all: a Raspberry Pi
# starts in less. Answers that came in between begin it anew.
BACK_OFF_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

# A bug, then a device that could not be asked, before what a device found.
_WORST_FIRST: Final = (70, 3, 2, 4, 1, 5, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """What became of one device.

    Attributes:
        device: Its name.
        value: What it answered; None where there is an error.
        error: Why it did not.
    """

    device: str
    value: T | None = None
    error: EdgeclsError | None = None


def worst(codes: Iterable[int]) -> int:
    """Return the exit code of several devices: the first of 70, 3, 2, 4, 1, 5, 0 that one gave."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), 70 if found else 0)


async def on_each(
    targets: Sequence[Target],
    work: Callable[[Session], Awaitable[T]],
    tallies: Mapping[str, Tally],
    note: Callable[[str], None],
    back_off_s: Sequence[float] = BACK_OFF_S,
) -> list[Outcome[T]]:
    """Do the same on every device, side by side.

    Args:
        targets: The devices.
        work: What to do; called again after a connection broke, it goes on where it stopped.
        tallies: Of each device by name: shows how far it is.
        note: Takes what the user should know meanwhile.
        back_off_s: Seconds to wait before each new attempt without an answer in between.

    Returns:
        One outcome per device, in order; a device's error stops no other.
    """

    async def one(target: Target) -> Outcome[T]:
        tally = tallies[target.name]
        try:
            value = await _persist(target, work, tally, note, back_off_s)
        except EdgeclsError as error:
            tally.stage = "failed"
            return Outcome(device=target.name, error=error)
        tally.stage = "done"
        return Outcome(device=target.name, value=value)

    return list(await asyncio.gather(*map(one, targets)))


async def _persist(
    target: Target,
    work: Callable[[Session], Awaitable[T]],
    tally: Tally,
    note: Callable[[str], None],
    back_off_s: Sequence[float],
) -> T:
    reached, attempt, before = False, 0, 0
    while True:
        try:
            async with _connect(target) as device:
                reached = True
                return await work(Session(target, device, tally, note))
        except LostError as error:
            lost = error
        if not reached:
            raise DeviceError(f"{target.name}: cannot be reached: {lost}") from lost
        if tally.done > before:
            attempt = 0
        before = tally.done
        moment = datetime.datetime.now().astimezone().strftime("%H:%M:%S")
        done = f", {tally.done} of {tally.total} images answered" if tally.total else ""
        what = f"{target.name} went away at {moment} ({lost}; it was {tally.stage}){done}"
        if attempt == len(back_off_s):
            raise DeviceError(
                f"{what}; {attempt} attempts to reach it again failed. The same command again "
                "goes on from there"
            ) from lost
        note(f"{what}; trying again in {back_off_s[attempt]:g} s")
        tally.stage = "away"
        await asyncio.sleep(back_off_s[attempt])
        attempt += 1
        tally.stage = "connecting"


@contextlib.asynccontextmanager
async def _connect(target: Target) -> AsyncIterator[Device]:
    device: Device
    if isinstance(target, SshTarget):
        async with connect_ssh(target) as device:
            yield device
    else:
        yield LocalDevice(target)
