"""The connection, against a real OpenSSH server."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from edgecls.core.errors import DeviceError, HostKeyError
from edgecls.devices.remote import Session, SshTarget, Tally, find_targets, on_each
from edgecls.devices.remote.ssh import connect_ssh
from edgecls.devices.remote.transport import Completed, LostError

from .conftest import SSHD, Server, here, start

T = TypeVar("T")

# sshd starts, logs in and ends: a second each.
pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed")

ECHO = "import sys, json; print(json.dumps(sys.argv[1:])); print(sys.stdin.read(), file=sys.stderr)"


def target(server: Server, **more: str) -> SshTarget:
    (found,) = find_targets(["kitchen"], {"kitchen": server.entry(**more)})
    assert isinstance(found, SshTarget)
    return found


def run(
    found: SshTarget, *arguments: str, stdin: bytes = b"", limit_bytes: int = 1 << 20
) -> Completed:
    async def work() -> Completed:
        async with connect_ssh(found) as device:
            return await device.run(arguments, stdin=[stdin], limit_bytes=limit_bytes)

    return asyncio.run(work())


def test_arguments_and_streams_arrive_as_they_are(server: Server) -> None:
    import json

    nasty = [
        "", " ", "two words", "it's", '"', "a\nb\n", "$(touch /tmp/x)", "`id`", "; exit 3", "&&",
        "|", "*", "~", "!!", "\\", "\\n", "-v", "--", "\t", "\u00e9\U0001f600", "{a,b}", "#",
        "$HOME", "a=b", "\x01\x7f",
    ]  # fmt: skip
    done = run(target(server), sys.executable, "-c", ECHO, *nasty, stdin="ä\n'x'".encode())

    assert json.loads(done.out) == nasty
    assert done.err == "ä\n'x'\n"
    assert done.code == 0


def test_megabytes_go_both_ways_at_once(server: Server) -> None:
    code = "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
    data = os.urandom(5 << 20)
    done = run(target(server), sys.executable, "-c", code, stdin=data, limit_bytes=len(data))

    assert done.out == data


def test_how_a_program_ends(server: Server) -> None:
    found = target(server)

    assert run(found, "sh", "-c", "exit 5").code == 5
    assert run(found, "no-such-program").code == 127
    with pytest.raises(DeviceError, match=r"signal KILL; is there enough memory\?"):
        run(found, sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    # What never reads its input and ends is no broken connection.
    assert run(found, "true", stdin=bytes(4 << 20)).code == 0


def test_output_is_bounded(server: Server) -> None:
    with pytest.raises(DeviceError, match="printed more than 1000 bytes"):
        run(target(server), "yes", limit_bytes=1000)
    done = run(target(server), sys.executable, "-c",
               "import sys; sys.stderr.write('x' * 1_000_000 + 'end')")  # fmt: skip
    assert len(done.err) == 64 << 10
    assert done.err.endswith("end")


def test_an_unknown_host_key_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    with pytest.raises(
        HostKeyError, match="host key is not known; connect once with: ssh"
    ) as raised:
        run(target(server, known_hosts=str(tmp_path / "empty")), "true")

    assert f"-p {server.port} {server.user}@127.0.0.1" in str(raised.value)
    assert "ssh-keyscan" in str(raised.value)
    assert (tmp_path / "empty").read_text() == ""
    with pytest.raises(HostKeyError, match="No such file"):
        run(target(server, known_hosts=str(tmp_path / "none")), "true")


def test_a_changed_host_key_is_refused(server: Server, tmp_path: Path) -> None:
    other = (server.folder / "user_key.pub").read_text()
    (tmp_path / "changed").write_text(f"[127.0.0.1]:{server.port} {other}")

    with pytest.raises(HostKeyError, match="another than the one in") as raised:
        run(target(server, known_hosts=str(tmp_path / "changed")), "true")

    assert "ssh-keygen -f" in str(raised.value)


def test_openssh_s_own_known_hosts_are_the_default(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = SshTarget(
        name="k", user=server.user, host="127.0.0.1", port=server.port, key=server.key
    )
    # A configuration that takes any host must not be listened to.
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("UserKnownHostsFile none\nStrictHostKeyChecking no\n")
    with pytest.raises(HostKeyError, match="not known"):
        run(found, "true")
    (tmp_path / ".ssh/known_hosts").write_text(server.known_hosts.read_text())

    assert run(found, "true").code == 0


def test_a_key_that_is_not_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no key")

    # The host's own key is no user's.
    with pytest.raises(DeviceError, match="it takes none of your keys; run: ssh-copy-id"):
        run(target(server, key=str(server.folder / "host_key")), "true")
    with pytest.raises(DeviceError, match="no private key that can be used"):
        run(target(server, key=str(tmp_path / "text")), "true")
    with pytest.raises(DeviceError, match="there is no such key"):
        run(target(server, key=str(tmp_path / "none")), "true")


def test_a_key_of_the_agent_is_taken(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        monkeypatch.setenv("HOME", str(tmp_path))
        subprocess.run(["ssh-add", "-q", server.key], check=True)
        entry = {name: value for name, value in server.entry().items() if name != "key"}
        (found,) = find_targets(["k"], {"k": entry})
        assert isinstance(found, SshTarget)

        assert run(found, "true").code == 0
    finally:
        agent.terminate()
        agent.wait()


def test_who_is_not_there_is_lost(server: Server) -> None:
    server.stop()

    with pytest.raises(LostError, match="refused"):
        run(target(server), "true")


def test_a_broken_connection_is_lost_and_not_an_answer(server: Server) -> None:
    async def work() -> Completed:
        async with connect_ssh(target(server)) as device:
            running = asyncio.create_task(device.run(["sleep", "60"]))
            await asyncio.sleep(0.5)
            server.drop()
            return await running

    with pytest.raises(LostError):
        asyncio.run(work())


def persist(
    targets: list[SshTarget], work: Callable[[Session], Awaitable[T]], **options: object
) -> tuple[list[object], list[str]]:
    """Return each device's answer or error, and what was noted."""
    notes: list[str] = []
    tallies = {found.name: Tally() for found in targets}
    outcomes = asyncio.run(on_each(targets, work, tallies, notes.append, back_off_s=(0.1, 0.2)))
    return [outcome.error or outcome.value for outcome in outcomes], notes


def test_a_device_that_comes_back_is_asked_again(server: Server) -> None:
    calls: list[int] = []

    async def work(session: Session) -> int:
        calls.append(1)
        if len(calls) < 3:
            server.drop()
        return (await session.device.run(["sh", "-c", "exit 7"])).code

    (found,), notes = persist([target(server)], work)

    assert found == 7
    assert len(notes) == 2
    assert all("kitchen went away at" in note for note in notes)
    assert [note.rsplit("; ", 1)[1] for note in notes] == [
        "trying again in 0.1 s", "trying again in 0.2 s",
    ]  # fmt: skip


def test_a_device_that_stays_away_ends_its_part_alone(server: Server, other: Server) -> None:
    import dataclasses

    cellar = dataclasses.replace(target(other), name="cellar")

    async def work(session: Session) -> int:
        if session.name == "cellar":
            session.tally.total, session.tally.done = 10, 4
            other.stop()
        return (await session.device.run(["true"])).code

    (kitchen, failed), notes = persist([target(server), cellar], work)

    assert kitchen == 0
    assert isinstance(failed, DeviceError)
    assert "4 of 10 images answered; 2 attempts to reach it again failed" in str(failed)
    # The images that were answered before give it its first wait once more.
    assert len(notes) in {2, 3}


def test_who_cannot_be_reached_at_first_is_not_waited_for(server: Server) -> None:
    server.stop()

    async def work(session: Session) -> int:
        raise AssertionError

    (found,), notes = persist([target(server)], work)

    assert isinstance(found, DeviceError)
    assert "kitchen: cannot be reached" in str(found)
    assert notes == []


def test_a_python_or_an_edgecls_that_is_missing_is_named(server: Server, tmp_path: Path) -> None:
    async def work(session: Session) -> int:
        return (await session.edgecls(["doctor"])).code

    bare = start(tmp_path / "bare", {})
    try:
        (python,), _ = persist([target(server, python="/no/python3")], work)
        (edgecls,), _ = persist([target(bare, python="/usr/bin/python3")], work)
    finally:
        bare.stop()

    assert "there is no /no/python3" in str(python)
    assert "has no edgecls; run: edgecls device install --on kitchen" in str(edgecls)


def test_the_home_folder_of_there_is_meant(tmp_path: Path) -> None:
    pytest.importorskip("asyncssh")
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # the server's ~, whatever $HOME says here
    if not os.access(home, os.W_OK):
        pytest.skip("the home folder cannot be written to")
    server = start(tmp_path / "kitchen", here())
    link = home / f".edgecls-test-python-{os.getpid()}"
    link.symlink_to(sys.executable)
    try:

        async def work(session: Session) -> int:
            return len(await session.store("about"))

        (found,), _ = persist([target(server, python=f"~/{link.name}")], work)
    finally:
        link.unlink()
        server.stop()

    assert isinstance(found, int)
    assert found > 0
