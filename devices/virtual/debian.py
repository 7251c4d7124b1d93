"""Debian's packages for another machine: fetched by apt with a state of its own, and unpacked.

Nothing of this machine's system is changed, and root's rights are not needed. The archive's
signatures are checked, as always.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ...core.errors import MissingError, UsageError

MIRROR_VARIABLE: Final = "EDGECLS_DEBIAN_MIRROR"

_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TOOLS: Final = {"apt-get": "apt", "dpkg-deb": "dpkg"}
_APT: Final = """\
Dir "{state}";
Dir::State "{state}/lib";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Etc "{state}/etc";
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
"""


class Archive:
    """A release of Debian for arm64."""

    def __init__(self, release: str, mirror: str, state: Path) -> None:
        """Fetch the list of its packages.

        Args:
            release: Its code name.
            mirror: The archive.
            state: An empty folder for apt.

        Raises:
            MissingError: A tool or the archive's key is missing here, or it cannot be reached.
        """
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise MissingError(
                    f"{tool} is not installed (package {package}): a virtual device is made on a "
                    "Debian, an Ubuntu or their like"
                )
        if not _KEYRING.is_file():
            raise MissingError(
                f"{_KEYRING} is missing; run: apt-get install debian-archive-keyring"
            )
        for part in ("lib/lists/partial", "cache/archives/partial", "etc"):
            (state / part).mkdir(parents=True)
        (state / "status").touch()
        source = f"deb [signed-by={_KEYRING}] {mirror} {release} main\n"
        (state / "etc/sources.list").write_text(source)
        (state / "apt.conf").write_text(_APT.format(state=state))
        self._state = state
        self._apt("apt-get", "-q", "update")

    def unpack(self, packages: Sequence[str], root: Path) -> dict[str, str]:
        """Fetch packages and what they depend on, unpack them, and return all their versions."""
        self._apt("apt-get", "-q", "-y", "install", "--download-only", *packages)
        return self._unpack(self._state / "cache/archives", root)

    def unpack_alone(self, package: str, root: Path) -> dict[str, str]:
        """Fetch and unpack a package without what it depends on."""
        self._apt("apt-get", "-q", "download", package)
        return self._unpack(self._state, root)

    def depends(self, package: str) -> list[str]:
        """Return the names of what a package depends on."""
        lines = self._apt("apt-cache", "depends", package).splitlines()
        return [line.split(":", 1)[1].strip() for line in lines if "Depends:" in line]

    def _apt(self, tool: str, *arguments: str) -> str:
        config = str(self._state / "apt.conf")
        return run([tool, "-c", config, *arguments], folder=self._state)

    @staticmethod
    def _unpack(folder: Path, root: Path) -> dict[str, str]:
        versions = {}
        for file in sorted(folder.glob("*.deb")):
            run(["dpkg-deb", "-x", str(file), str(root)])
            package, version, _ = file.name.split("_")
            versions[package] = version.replace("%3a", ":")
        return versions


def default_mirror() -> str:
    """Return the Debian archive of ``$EDGECLS_DEBIAN_MIRROR``, or that of this machine's apt.

    Raises:
        UsageError: It uses none.
        MissingError: There is no apt.
    """
    named = os.environ.get(MIRROR_VARIABLE)
    if named:
        return named
    if shutil.which("apt-get") is None:
        raise MissingError("apt-get is not installed: a virtual device is made on a Debian")
    listed = run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(CODENAME)|$(REPO_URI)"])
    for line in listed.splitlines():
        origin, suite, uri = line.split("|", 2)
        if origin == "Debian" and suite.isalpha():
            return uri.rstrip("/")
    raise UsageError(
        f"this machine's apt knows no Debian archive: give one with --mirror URL or in "
        f"{MIRROR_VARIABLE} (on a Debian, run apt-get update)"
    )


def run(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a tool and return what it prints.

    Raises:
        MissingError: It fails, with the last line that it says.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=folder
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()
        raise MissingError(f"{Path(command[0]).name} failed ({done.returncode}): {said[-1]}")
    return done.stdout
