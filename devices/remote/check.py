"""Lets a device check a bundle: ``edgecls verify`` there."""

from __future__ import annotations

from collections.abc import Sequence

from ...bundle import Bundle
from ...runtimes.verify import Verification
from .push import push_bundle
from .session import Session


async def verify_there(session: Session, bundle: Bundle, options: Sequence[str]) -> Verification:
    """Send a bundle and return what became of its golden samples there.

    Args:
        session: The device.
        bundle: What to check.
        options: More of ``edgecls verify``, e.g. ("--threads", "2").

    Raises:
        LostError: The connection broke.
        EdgeclsError: The device cannot run the bundle.
    """
    place = await push_bundle(session, bundle)
    session.tally.stage = "verifying"
    done = await session.edgecls(["verify", place, "--json", *options], codes=(0, 1))
    if not done.out:
        raise session.failure(done)
    found: Verification = session.decode(done.out, Verification)
    return found
