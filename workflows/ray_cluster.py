"""Shards as tasks of a Ray cluster, whose machines find the same files under the same paths.

Tasks, not Ray Data with a pool of actors: a shard is an input of kilobytes and a result of
kilobytes, so there is no data for Ray to move, and a task's worker keeps its models open just so.
Ray does a task again, elsewhere, whose worker or machine is lost.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import socket
from collections.abc import Generator, Iterable
from typing import Any, Final

import msgspec

from ..core.errors import MissingError, MissingPackageError, UsageError
from ..drift.partial import Partial
from .processes import TRIES
from .results import RemoteWorker, read_result
from .shards import Job, Shard

_CONNECT_S: Final = 10.0


def run_ray(
    job: Job, shards: Iterable[Shard], address: str, workers: int | None = None
) -> Generator[tuple[int, Partial], None, None]:
    """Yield each shard's index and partial result, in the order in which they are ready.

    This machine must be one of the cluster's (``ray start --address``). Closing the generator
    leaves the cluster.

    Args:
        job: What is done with every shard.
        shards: The shards.
        address: host:port of the cluster's head; no cluster is ever started here.
        workers: Tasks at a time; None is as many as the cluster has CPUs.

    Raises:
        EdgeclsError: A worker's.
        MissingError: The cluster is not there, or ``TRIES`` workers were lost at a shard.
        MissingPackageError: Ray is not installed.
        UsageError: The address is none, or the cluster is open to everybody.
    """
    ray = _connect(address)
    try:
        task = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_work)
        description, pending = msgspec.json.encode(job), dict[Any, int]()
        slots = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        # A second task for each CPU waits where it will run.
        waiting, most = iter(shards), slots if workers else 2 * slots
        while True:
            while len(pending) < most and (shard := next(waiting, None)) is not None:
                pending[task.remote(description, msgspec.json.encode(shard))] = shard.index
            if not pending:
                return
            ready, _ = ray.wait(list(pending))
            yield pending.pop(ready[0]), read_result(ray.get(ready[0]))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise MissingError(f"the Ray cluster {address} lost {TRIES} workers: {reason}") from error
    finally:
        ray.shutdown()


def _connect(address: str) -> Any:
    if not re.fullmatch(r"[^\s:/]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5}", address):
        raise UsageError(f"--ray {address}: expected host:port of a cluster that runs")
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise UsageError(
            "--ray: Ray listens on all of a machine's interfaces, whatever address it is told, and "
            "runs what it is sent; start the cluster with RAY_AUTH_MODE=token and a token, and "
            "give both to this process too (docs/drift-at-scale.md)"
        )
    try:
        ray = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise MissingPackageError("ray", "ray") from error
    host, _, port = address.rpartition(":")
    try:
        # Ray itself tries for a minute.
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        # A ConnectionError also where the token is another.
        reason = str(error).strip().splitlines()[0]
        raise MissingError(f"no Ray cluster can be used at {address}: {reason}") from error
    return ray


@functools.lru_cache(maxsize=1)
def _worker(job: bytes) -> RemoteWorker:
    return RemoteWorker(job)


def _work(job: bytes, shard: bytes) -> bytes:
    """Run in a worker process, which takes one task after the other: models are opened once."""
    return _worker(job)(shard)
