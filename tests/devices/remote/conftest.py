"""A real OpenSSH server on 127.0.0.1, with keys of its own that are thrown away."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path

import pytest

from ...runtimes.conftest import (  # noqa: F401
    MakeBundle,
    encoded,
    make_bundle,
    photo,
    pi_bundle,
    tflite_float,
    tflite_int8,
    weights,
)
from ...virtual.conftest import pi5  # noqa: F401

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Server:
    """An SSH server, and what a client needs for it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    cache: Path
    python: str = sys.executable
    user: str = field(default_factory=getuser)

    @property
    def url(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def key(self) -> Path:
        return self.folder / "user_key"

    def entry(self, **more: str) -> dict[str, str]:
        """Its entry in [devices]."""
        return {
            "url": self.url, "python": self.python, "known_hosts": str(self.known_hosts),
            "key": str(self.key),
        } | more  # fmt: skip

    def sessions(self) -> list[int]:
        """The process ids of its children: one per connection."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def drop(self) -> None:
        """Break every connection, as a device does that loses its power."""
        for pid in self.sessions():
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it with its connections, as a device that is switched off."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGSTOP)  # nobody gets in between
        self.drop()
        self.process.kill()
        self.process.wait()


def start(folder: Path, environment: Mapping[str, str], port: int | None = None) -> Server:
    """Start a server whose programs see these variables."""
    if SSHD is None:
        pytest.skip("sshd is not installed: apt-get install openssh-server")
    if not Path("/run/sshd").is_dir() and os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755)  # its unprivileged part is locked in there
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in ("host_key", "user_key"):
        if not (folder / name).exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
            )
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    cache = folder / "cache"
    variables = {"EDGECLS_CACHE": str(cache), **environment}
    quoted = " ".join(f'"{name}={value}"' for name, value in variables.items())
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nUsePAM no\n"
        "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin prohibit-password\nMaxStartups 100\nSetEnv {quoted}\n"
    )
    process = subprocess.Popen([SSHD, "-D", "-E", folder / "log", "-f", folder / "config"])
    public = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    else:
        process.kill()
        pytest.fail(f"sshd does not start: {(folder / 'log').read_text()}")
    return Server(folder=folder, port=port, process=process, cache=cache)


def here() -> dict[str, str]:
    """What a program there needs to find this very package."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return kept | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("asyncssh")
    found = start(tmp_path / "kitchen", here())
    yield found
    found.stop()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Server]:
    """A second device, with other keys."""
    pytest.importorskip("asyncssh")
    found = start(tmp_path / "cellar", here())
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def _own_cache(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if "pi5" in request.fixturenames:
        return  # virtual Pis lie in the user's cache
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "here"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Ten images, one of them twice, with names that no shell may see; and one that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [
        "plain.png", "two words.png", "it's.png", 'a "quote".png', "new\nline.png",
        "$(touch x).png", "; rm -rf *.png", "-v.png", "\u00e9\U0001f600.png", "again.png",
    ]  # fmt: skip
    for index, name in enumerate(names):
        seed = 0 if name == "again.png" else index
        (folder / name).write_bytes(encoded(photo(seed)))
    (folder / "broken.png").write_bytes(b"no image")
    return sorted(folder.iterdir())
