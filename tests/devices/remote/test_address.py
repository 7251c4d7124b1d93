from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls.core.errors import UsageError
from edgecls.devices.remote import SshTarget, find_targets
from edgecls.devices.remote.address import parse_address

USERS = st.from_regex(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,20}", fullmatch=True)
HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}(\.[a-z0-9]{1,5}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)


@given(st.none() | USERS, HOSTS, st.none() | st.integers(1, 65535))
def test_an_address_is_taken_apart(user: str | None, host: str, port: int | None) -> None:
    text = f"ssh://{f'{user}@' if user else ''}{host}{f':{port}' if port else ''}"

    found = parse_address(text)

    assert (found.user, found.host, found.port) == (user, host.strip("[]"), port or 22)
    assert found.name == text


@given(st.text(max_size=30))
def test_anything_else_is_refused(text: str) -> None:
    for address in (text, f"ssh://{text}", f"ssh://pi@{text}"):
        try:
            found = parse_address(address)
        except UsageError:
            continue
        # What passes can be neither an option nor a second word of a command.
        assert found.host.isascii()
        assert not found.host.startswith("-")
        assert not set(found.host + (found.user or "")) & set(" \t\n'\"$`;|&<>()*?!\\/@")


@pytest.mark.parametrize(
    "text",
    [
        "pi@kitchen", "http://kitchen", "ssh://", "ssh://-oProxyCommand=x", "ssh://pi@-v",
        "ssh://-v@kitchen", "ssh://kitchen:0", "ssh://kitchen:65536", "ssh://kitchen:", "ssh://a b",
        "ssh://kitchen/etc", "ssh://kitchen\n", "ssh://kitchen?x", "ssh://[::1", "ssh://::1",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="expected a"):
        parse_address(text)


@pytest.mark.parametrize("text", ["ssh://pi:hunter2@kitchen", "pi:hunter2@kitchen"])
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="password") as raised:
        find_targets([text])

    assert "hunter2" not in str(raised.value)


def test_the_table_names_devices(tmp_path: Path) -> None:
    table = {
        "kitchen": {"url": "ssh://pi@10.0.0.7:2222", "python": "/opt/python", "key": "keys/k"},
        "hall": {"url": "ssh://hall", "known_hosts": "/etc/hosts"},
    }

    kitchen, hall, cellar = find_targets(["kitchen", "hall", "ssh://cellar"], table, tmp_path)

    assert kitchen == SshTarget(
        name="kitchen", user="pi", host="10.0.0.7", port=2222, python="/opt/python",
        key=tmp_path / "keys/k",
    )  # fmt: skip
    assert hall == SshTarget(name="hall", user=None, host="hall", known_hosts=Path("/etc/hosts"))
    assert cellar == SshTarget(name="ssh://cellar", user=None, host="cellar")


@pytest.mark.parametrize(
    ("table", "names", "message"),
    [
        ({"kitchen": {"url": "ssh://k"}}, ["kitchn"], "no device is called 'kitchn'; .*: kitchen"),
        (None, ["kitchen"], "there are: here"),
        ({"kitchen": {"url": "ssh://k"}}, ["kitchen", "kitchen"], "given twice"),
        ({"kitchen": {"url": "ssh://k", "pasword": "x"}}, ["kitchen"], "pasword"),
        ({"kitchen": {"host": "k"}}, ["kitchen"], "url with|missing required field|unknown"),
        ({"kitchen": "ssh://k"}, ["kitchen"], r"\[devices\]"),
        ({"kitchen": {"url": "ssh://pi:secret@k"}}, ["kitchen"], "password"),
    ],
)
def test_a_table_that_does_not_fit(table: object, names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_targets(names, table)
