"""Two machines of a Ray cluster on loopback: lost workers and machines change no bit."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgecls.core.errors import BadInputError, MissingError, MissingPackageError, UsageError
from edgecls.core.progress import Quiet
from edgecls.drift.partial import Partial
from edgecls.runtimes import load
from edgecls.workflows.answering import DataOptions, gather
from edgecls.workflows.ray_cluster import run_ray
from edgecls.workflows.shards import Job, Shard, Shards, Worker
from edgecls.workflows.sources import Source, SourceSpec, from_predictor

if TYPE_CHECKING:
    from ..conftest import Digits

INSTALLED = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(
    not INSTALLED, reason="Ray is not installed; make nightly installs the extra ray"
)
# Ray 2.60 leaves files and sockets to the garbage collector, and calls what Python deprecates.
quiet = pytest.mark.filterwarnings("ignore")
# Ray reads the token once in a process.
TOKEN = secrets.token_hex(32)
AWAIT_TWO = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.1)
"""
JOB = Job(sources=(SourceSpec(name=b"x", sha256="x"),))


@dataclass(frozen=True)
class Cluster:
    """A head on 127.0.0.2 and a second machine on 127.0.0.3, with one CPU each."""

    address: str
    head: int
    second: int


@contextlib.contextmanager
def node(*arguments: str) -> Iterator[int]:
    """Run a machine of the cluster; all its processes are of one session, its id is given."""
    script = Path(sys.executable).with_name("ray")
    command = [script, "start", "--block", "--num-cpus=1", "--disable-usage-stats", *arguments]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        for pid in members(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def members(session: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(file.read_text().rpartition(")")[2].split()[3]) == session:
                found.append(int(file.parent.name))
    return found


def workers(session: int) -> list[int]:
    """Return a machine's processes that do tasks; without its agents it ends itself."""
    found = []
    for pid in members(session):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"ray::_work", b"ray::IDLE")):
                found.append(pid)
    return found


def await_port(host: str, port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), 1).close()
            return
        time.sleep(0.1)
    pytest.fail("Ray does not start")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.2:{port}"
    # Ray's sockets want a short path.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    head = ("--head", "--node-ip-address=127.0.0.2", f"--port={port}", f"--temp-dir={folder}",
            "--include-dashboard=false")  # fmt: skip
    second = (f"--address={address}", "--node-ip-address=127.0.0.3")
    try:
        with node(*head) as first:
            await_port("127.0.0.2", port)
            with node(*second) as other:
                await_two = [sys.executable, "-W", "ignore", "-c", AWAIT_TWO, address]
                subprocess.run(await_two, check=True, timeout=100)
                yield Cluster(address=address, head=first, second=other)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sources(digits: Digits) -> list[Source]:
    names = ("raspberry-pi", "jetson")
    return [
        from_predictor(load(digits.bundle(name), allow_fallback=True, threads=1)) for name in names
    ]


def merged(results: list[tuple[int, Partial]]) -> object:
    total = Partial()
    for _, partial in sorted(results):
        total.merge(partial)
    return total.to_json()


@needs_ray
@quiet
@pytest.mark.nightly
@pytest.mark.parametrize("lost", ["nothing", "worker", "machine"])
def test_two_machines_give_what_one_process_gives(
    digits: Digits, sources: list[Source], cluster: Cluster, lost: str
) -> None:
    job = Job(sources=tuple(source.spec for source in sources), keep=True)
    shards = Shards(found=gather(sources, DataOptions(data=digits.judged), Quiet()))
    worker = Worker(job=job, sources=sources)
    expected = merged([(shard.index, worker(shard)) for shard in shards])
    running = run_ray(job, shards, cluster.address)
    results = [next(running)]
    for _ in range(600):  # its task waits meanwhile: no more are sent
        if workers(cluster.second):
            break
        time.sleep(0.1)
    victims = {
        "nothing": [],
        "worker": workers(cluster.head) + workers(cluster.second),
        "machine": members(cluster.second),
    }[lost]
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    results += running

    assert victims or lost == "nothing"
    assert sorted(index for index, _ in results) == list(range(len(shards)))
    assert merged(results) == expected


@needs_ray
@quiet
@pytest.mark.nightly
def test_a_workers_error_comes_back(cluster: Cluster) -> None:
    shards = [Shard(index=0, names=("a.png",), paths=(b"a.png",))]
    job = Job(sources=(SourceSpec(name=b"/no/such/model.onnx", sha256="x"),))

    with pytest.raises(BadInputError, match="model"):
        list(run_ray(job, shards, cluster.address))


@needs_ray
@pytest.mark.nightly
def test_the_command_and_a_stranger(
    digits: Digits, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        sys.executable, "-m", "edgecls", "drift", digits.bundle("raspberry-pi"), "--reference",
        digits.bundle("jetson"), "--data", digits.judged, "--json",
    ]  # fmt: skip
    here = subprocess.run(command, capture_output=True, check=False)
    there = subprocess.run([*command, "--ray", cluster.address], capture_output=True, check=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    stranger = subprocess.run(
        [*command, "--ray", cluster.address], capture_output=True, check=False
    )

    assert there.stdout == here.stdout
    assert there.returncode == here.returncode == 0
    assert stranger.returncode == 3
    assert b"no Ray cluster can be used" in stranger.stderr


def test_a_cluster_that_is_open_to_everybody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)

    with pytest.raises(UsageError, match="RAY_AUTH_MODE=token"):
        list(run_ray(JOB, [], "127.0.0.1:6379"))


@pytest.mark.parametrize("address", ["", "local", "auto", "ray://host:10001", "host", "host:1:2 x"])
def test_no_cluster_is_started(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    with pytest.raises(UsageError, match="expected host:port"):
        list(run_ray(JOB, [], address))


@pytest.mark.skipif(INSTALLED, reason="Ray is installed")
def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    with pytest.raises(MissingPackageError, match=r"edgecls\[ray\]"):
        list(run_ray(JOB, [], "127.0.0.1:6379"))


@needs_ray
@quiet
def test_no_cluster_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    with pytest.raises(MissingError, match="no Ray cluster can be used at 127"):
        list(run_ray(JOB, [], "127.0.0.1:9"))
