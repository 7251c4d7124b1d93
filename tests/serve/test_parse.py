"""Bodies are parsed one at a time, and no later than their senders wait."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from edgecls.runtimes import load
from edgecls.serve.counts import Counts
from edgecls.serve.errors import RequestError
from edgecls.serve.model import open_model
from edgecls.serve.service import Service
from edgecls.serve.settings import Settings


def test_bodies_are_parsed_one_at_a_time(pi_bundle: Path) -> None:
    service = Service(open_model(lambda: load(pi_bundle)), Settings(), Counts(1))
    inside = threading.Semaphore(1)

    def parse(number: int) -> int:
        assert inside.acquire(blocking=False)
        time.sleep(0.01)
        inside.release()
        return number

    async def run() -> list[int]:
        return await asyncio.gather(*(service.parse(parse, number) for number in range(8)))

    assert asyncio.run(run()) == list(range(8))
    service.close()


def test_a_body_whose_turn_comes_too_late_is_not_parsed(pi_bundle: Path) -> None:
    service = Service(open_model(lambda: load(pi_bundle)), Settings(timeout_s=0.1), Counts(1))
    parsed = []

    async def run() -> None:
        before = asyncio.create_task(service.parse(time.sleep, 0.3))
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match=r"no answer within 0\.1 s") as late:
            await service.parse(parsed.append, 1)
        assert late.value.status == 503
        assert late.value.retry_after_s
        await before

    asyncio.run(run())
    assert parsed == []
    service.close()
