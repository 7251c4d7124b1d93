"""A device over SSH: keys and agents only, and only where its host key is known.

Nothing is taken from ~/.ssh/config: what a connection does stands in its address and its table.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...core.errors import DeviceError, HostKeyError, MissingPackageError
from .address import SshTarget
from .transport import OUTPUT_LIMIT_BYTES, Completed, LostError, talk

if TYPE_CHECKING:
    from types import ModuleType

# A device that says nothing for 20 s is gone.
_KEEPALIVE_S: Final = 5
_KEEPALIVES: Final = 4
_CONNECT_S: Final = 15
_LOGIN_S: Final = 30
_GLOBAL_KNOWN_HOSTS: Final = Path("/etc/ssh/ssh_known_hosts")


class SshDevice:
    """See ``Device``."""

    def __init__(self, connection: Any, asyncssh: ModuleType) -> None:
        self._connection = connection
        self._asyncssh = asyncssh

    async def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: Iterable[bytes] = (),
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:
        """Run a program through the login shell, every argument quoted for it."""
        try:
            process = await self._connection.create_process(shlex.join(arguments), encoding=None)
            try:
                out, err = await talk(
                    process.stdin, process.stdout, process.stderr, stdin, limit_bytes
                )
                await process.wait_closed()
            finally:
                process.close()
        except (OSError, self._asyncssh.Error) as error:
            raise LostError(_reason(error)) from error
        if process.exit_signal is not None:
            raise DeviceError(
                f"{Path(arguments[0]).name} was ended there by signal {process.exit_signal[0]}; "
                "is there enough memory?"
            )
        if process.exit_status is None:
            raise LostError("the connection closed")
        return Completed(code=process.exit_status, out=out, err=err)


@contextlib.asynccontextmanager
async def connect_ssh(target: SshTarget) -> AsyncIterator[SshDevice]:
    """Yield a device that is logged in to.

    Raises:
        HostKeyError: Its host key is not known, or another one.
        DeviceError: It refuses the keys, or a file that is needed cannot be read.
        LostError: It cannot be reached.
        MissingPackageError: asyncssh is not installed.
    """
    try:
        import asyncssh
    except ModuleNotFoundError as error:
        raise MissingPackageError("asyncssh", "ssh") from error
    known = _known_hosts(target, asyncssh)
    try:
        connection = await asyncssh.connect(
            target.host,
            target.port,
            username=target.user or (),
            known_hosts=known,
            config=None,
            client_keys=() if target.key is None else [str(target.key)],
            preferred_auth=["publickey"],
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_auth=False,
            gss_kex=False,
            agent_forwarding=False,
            connect_timeout=_CONNECT_S,
            login_timeout=_LOGIN_S,
            keepalive_interval=_KEEPALIVE_S,
            keepalive_count_max=_KEEPALIVES,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise _host_key_error(target, known, asyncssh) from error
    except asyncssh.PermissionDenied as error:
        raise DeviceError(
            f"{target.name}: it takes none of your keys; run: {_command('ssh-copy-id', target)}, "
            "or ssh-add where the key has a passphrase"
        ) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise DeviceError(
            f"{target.key}: no private key that can be used: {error}; one with a passphrase goes "
            "through the agent: ssh-add"
        ) from error
    except FileNotFoundError as error:
        raise DeviceError(f"{target.name}: {error.filename}: there is no such key") from error
    except (OSError, asyncssh.Error, asyncio.TimeoutError) as error:
        raise LostError(_reason(error)) from error
    async with connection:
        yield SshDevice(connection, asyncssh)


def _known_hosts(target: SshTarget, asyncssh: ModuleType) -> Any:
    """Read the host keys; never None, which would mean that any is taken."""
    files = [target.known_hosts]
    if target.known_hosts is None:
        standard = (Path("~/.ssh/known_hosts").expanduser(), _GLOBAL_KNOWN_HOSTS)
        files = [file for file in standard if file.is_file()]
    text = ""
    for file in files:
        assert file is not None
        try:
            text += file.read_text(errors="replace") + "\n"
        except OSError as error:
            raise HostKeyError(f"{target.name}: {file}: {error.strerror}") from error
    try:
        return asyncssh.import_known_hosts(text)
    except ValueError as error:
        raise HostKeyError(f"{', '.join(map(str, files))}: {error}") from error


def _host_key_error(target: SshTarget, known: Any, asyncssh: ModuleType) -> HostKeyError:
    keys = asyncssh.match_known_hosts(known, target.host, "", target.port)
    scan = f"ssh-keyscan -p {target.port} {target.host}"
    file = target.known_hosts or "~/.ssh/known_hosts"
    if any(keys[:2]):
        place = target.host if target.port == 22 else f"[{target.host}]:{target.port}"
        return HostKeyError(
            f"{target.name}: its host key is another than the one in {file}: either it was "
            "installed anew, or somebody stands between. If you know why: "
            f"ssh-keygen -f {file} -R '{place}', then connect once with: {_command('ssh', target)}"
        )
    return HostKeyError(
        f"{target.name}: its host key is not known; connect once with: {_command('ssh', target)}, "
        f"and compare the fingerprint (or: {scan} >> {file}, where you trust the network)"
    )


def _reason(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    # asyncio puts another text in its place; names that are not found have negative numbers.
    text = os.strerror(number) if number is not None and number > 0 else str(error)
    return text.lower() or "it does not answer"


def _command(program: str, target: SshTarget) -> str:
    who = f"{target.user}@{target.host}" if target.user else target.host
    hosts = f"-o UserKnownHostsFile={target.known_hosts} " if target.known_hosts else ""
    return f"{program} {hosts}-p {target.port} {who}"
