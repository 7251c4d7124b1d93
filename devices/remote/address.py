"""Which device is meant: an ``ssh://`` address, a name of ``[devices]``, a virtual Pi, or here."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from ...core.errors import UsageError
from ...core.files import CACHE_VARIABLE
from ..virtual import VirtualPi, created

_FORM: Final = "ssh://user@host or ssh://user@host:port"
# A name or IPv4 address, or an IPv6 address in brackets. No first dash: it would be an option.
_ADDRESS: Final = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9._][A-Za-z0-9._-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*)|\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device of the ``[devices]`` table.

    Attributes:
        url: Its address.
        python: The Python there that has edgecls; "~/" is the user's home there.
        known_hosts: The file with its host key; by default those of OpenSSH.
        key: The file of a private key; by default the agent's, and those of ~/.ssh.
    """

    url: str
    python: str | None = None
    known_hosts: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """A device over SSH.

    Attributes:
        name: As the user called it.
        user: Whom to log in as; None is the user of here.
        host: Its name or IP address.
        port: Of its SSH server.
        python: See ``Entry``; None where it is to be found out.
        known_hosts: A file; None is OpenSSH's own.
        key: A file; None is the agent, and the keys of ~/.ssh.
    """

    name: str
    user: str | None
    host: str
    port: int = 22
    python: str | None = None
    known_hosts: Path | None = None
    key: Path | None = None

    @property
    def identity(self) -> str:
        """Which device it is, whatever it is called."""
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTarget:
    """A process of this machine: a virtual Pi's Python under QEMU, or this very Python.

    Attributes:
        name: As the user called it.
        identity: Which device it is, whatever it is called.
        program: What is run as its Python.
        environment: Gives that one's; raises MissingError where it cannot run.
        python: As that Python calls itself; None where it is to be found out.
    """

    name: str
    identity: str
    program: Path
    environment: Callable[[], Mapping[str, str]]
    python: str | None = None


Target: TypeAlias = "SshTarget | LocalTarget"

HERE: Final = "here"
"""This machine, where no device of the user's is called so."""


def parse_address(text: str, *, name: str | None = None) -> SshTarget:
    """Return the device of an ``ssh://`` address.

    Raises:
        UsageError: It is none, or holds a password; the message does not repeat that.
    """
    if ":" in text.removeprefix("ssh://").rpartition("@")[0]:
        raise UsageError(
            "a device's address has a password in it, which every process here can read; use a "
            f"key: {_FORM}, and ssh-copy-id once"
        )
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UsageError(f"expected a device's address as {_FORM}, found {text!r}")
    port = int(found["port"] or 22)
    if not 1 <= port <= 65535:
        raise UsageError(f"{text}: expected a port of 1 to 65535, found {port}")
    host = found["host"] or found["v6"]
    return SshTarget(name=name or text, user=found["user"], host=host, port=port)


def find_targets(
    names: Sequence[str], table: Any = None, folder: Path | None = None
) -> list[Target]:
    """Return the devices that the user named: addresses, names of the table, virtual Pis, "here".

    Args:
        names: As given; a name of the table wins over a virtual Pi's.
        table: ``[devices]`` of edgecls.toml; None without one.
        folder: Where that file lies: its relative paths start there.

    Raises:
        UsageError: One is unknown or given twice, or the table is not valid.
    """
    entries = _entries(table)
    targets: list[Target] = []
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is given twice")
        if "://" in name or "@" in name:
            targets.append(parse_address(name))
        elif name in entries:
            targets.append(_from_entry(name, entries[name], folder or Path()))
        elif name == HERE:
            targets.append(_this_machine())
        else:
            pis = created()
            if name not in pis:
                known = ", ".join([*entries, *pis, HERE])
                raise UsageError(
                    f"no device is called {name!r}; there are: {known}. Give its address, "
                    f"{_FORM}, or name it under [devices] of a file given with -c"
                )
            targets.append(_emulated(name, pis[name]))
    return targets


def _entries(table: Any) -> dict[str, Entry]:
    try:
        return msgspec.convert(table or {}, dict[str, Entry])
    except msgspec.ValidationError as error:
        raise UsageError(
            f"[devices]: {error}; a device is [devices.NAME] with url, and where needed python, "
            "known_hosts and key"
        ) from error


def _from_entry(name: str, entry: Entry, folder: Path) -> SshTarget:
    address = parse_address(entry.url, name=name)

    def beside(value: str | None) -> Path | None:
        return None if value is None else folder / Path(value).expanduser()

    return SshTarget(
        name=name, user=address.user, host=address.host, port=address.port, python=entry.python,
        known_hosts=beside(entry.known_hosts), key=beside(entry.key),
    )  # fmt: skip


def _this_machine() -> LocalTarget:
    return LocalTarget(
        name=HERE, identity=HERE, program=Path(sys.executable), python=sys.executable,
        environment=lambda: dict(os.environ),
    )  # fmt: skip


def _emulated(name: str, pi: VirtualPi) -> LocalTarget:
    """Return a virtual Pi; it keeps what it is sent in its own root."""
    cache = pi.root / "opt/edgecls/cache"
    return LocalTarget(
        name=name, identity=str(pi.root), program=pi.launchers / "python3",
        environment=lambda: pi.environment({CACHE_VARIABLE: str(cache)}),
    )  # fmt: skip
