"""The table that fills as devices answer, as a terminal shows it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from .conftest import SSHD, Server
from .test_commands import config

pytestmark = [pytest.mark.skipif(SSHD is None, reason="sshd is not installed"), pytest.mark.slow]

_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


def run_on_a_terminal(command: list[str]) -> tuple[int, str, str]:
    """Return the exit code, stdout, and what the terminal on stderr was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    sent = bytearray()

    def listen() -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while True:
                sent.extend(os.read(ours, 1 << 16))

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, text=True,
            check=False, env=os.environ | {"TERM": "xterm-256color"},
        )  # fmt: skip
    finally:
        os.close(theirs)
        listener.join()
        os.close(ours)
    return done.returncode, done.stdout, sent.decode()


def screens(sent: str) -> list[str]:
    """Return what the screen showed each time before lines were erased, and at the end."""
    lines, row, column, found, drawn = [""], 0, 0, [""], False

    def look() -> None:
        shown = "\n".join(line.rstrip() for line in lines).rstrip()
        if shown != found[-1]:
            found.append(shown)

    position = 0
    while position < len(sent):
        token = _TOKEN.match(sent, position)
        assert token is not None, repr(sent[position : position + 20])
        position = token.end()
        argument, kind, back, down, text = token.groups()
        if back:
            column = 0
        elif down:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text:
            before = lines[row].ljust(column)
            lines[row] = before[:column] + text + before[column + len(text) :]
            column += len(text)
            drawn = True
        elif kind == "K":
            assert argument == "2"
            if drawn:
                look()
            lines[row], drawn = "", False
        elif kind == "A":
            row -= int(argument or 1)
        else:
            assert kind in "mhl", kind  # colours, and the cursor hidden
    look()
    return found


def test_a_screen_is_read_as_a_terminal_shows_it() -> None:
    sent = "\x1b[?25la\r\n\x1b[1mbc\x1b[0m\r\x1b[2K\x1b[1A\x1b[2Kd\r\ne\x1b[?25h\r\n"

    assert screens(sent) == ["", "a\nbc", "d\ne"]


def test_the_table_ends_with_each_devices_state_and_images(
    server: Server, other: Server, pi_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    photos[-1].with_name("broken.png").unlink()
    away = replace(other, port=1)  # nobody listens there
    file = config(tmp_path, kitchen=server, cellar=other, hall=away)
    code, out, sent = run_on_a_terminal(
        [sys.executable, "-m", "edgecls", "drift", str(pi_bundle), "-c", str(file),
         "--on", "kitchen", "--on", "cellar", "--on", "hall", "--data", str(photos[0].parent)]
    )  # fmt: skip

    assert code == 3  # one is away
    assert "cellar" in out
    seen = screens(sent)
    tables = [screen for screen in seen if screen.startswith("device ")]
    assert [line.split() for line in tables[-1].splitlines()] == [
        ["device", "state", "images"],
        ["kitchen", "done", "9/9"],  # ten files, two of them equal
        ["cellar", "done", "9/9"],
        ["hall", "failed"],
    ]
    first = [line.split() for line in tables[0].splitlines()]
    assert [row[0] for row in first] == ["device", "kitchen", "cellar", "hall"]
    assert "done" not in tables[0]
    # It is gone at the end; what remains is what has to be read.
    assert "device " not in seen[-1]
    assert "hall: cannot be reached" in seen[-1]
