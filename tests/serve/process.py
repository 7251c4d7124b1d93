"""A server as a user starts it: the command, in processes of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2


@dataclass
class Running:
    """A server that runs, and what it says."""

    process: subprocess.Popen[str]
    url: str = ""
    log: list[str] = field(default_factory=list)

    def children(self) -> list[int]:
        """Return the ids of its processes, the oldest first."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return sorted(map(int, tasks.read_text().split()))

    def rss_bytes(self) -> int:
        """Return the memory of what answers."""
        pages = sum(
            int(Path(f"/proc/{child}/statm").read_text().split()[1]) for child in self.children()
        )
        return pages * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def client(self) -> httpx2.Client:
        # Not by way of a proxy that the environment names.
        return httpx2.Client(base_url=self.url, timeout=60, trust_env=False)


@contextlib.contextmanager
def running(
    bundle: Path, *options: object, descriptors: int | None = None, **environment: str
) -> Iterator[Running]:
    """Start a server on a free port, and end it; ``descriptors`` is the most that it may have."""
    command = [sys.executable, "-m", "edgecls", "serve", bundle, "--port", 0, *options]
    if descriptors is not None:
        command = ["prlimit", f"--nofile={descriptors}", *command]
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    server = Running(process)
    errors = process.stderr
    reader = threading.Thread(target=lambda: server.log.extend(errors), daemon=True)
    reader.start()
    try:
        said = process.stdout.readline()
        if " answers on " in said:
            server.url = said.partition(" answers on ")[2].split()[0]
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(10)
        process.stdout.close()
        errors.close()
