"""The environments of other tools, for the benchmarks: made with pip, measured, kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PEERS: Final = Path(__file__).resolve().parent / "peers"

_MEASURE: Final = """
import importlib.metadata, json, pathlib, platform, sysconfig
found = {d.metadata["Name"].lower(): d for d in importlib.metadata.distributions()}
pip = [found.pop("pip", None)]
site = pathlib.Path(sysconfig.get_paths()["purelib"])
size = sum(f.stat().st_size for f in site.rglob("*") if f.is_file() and not f.is_symlink())
size -= sum(f.stat().st_size for f in site.glob("pip*/**/*") if f.is_file())
print(json.dumps({"python": platform.python_version(), "bytes": size,
                  "packages": {name: d.version for name, d in sorted(found.items())}}))
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        name: Of its requirements, ``peers/NAME.txt``, and of its folder.
        python: What makes it.
        folder: Where it stands, with its siblings.
    """

    name: str
    python: str
    folder: Path

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return self.folder / self.name / "bin" / "python"

    def make(self) -> None:
        """Make it, or leave it as it is where it fits its requirements; keep the error if any."""
        target = self.folder / self.name
        digest = hashlib.sha256(self._requirements().read_bytes()).hexdigest()
        if self.state().get("requirements") == digest:
            return
        shutil.rmtree(target, ignore_errors=True)
        state: dict[str, Any] = {"requirements": digest}
        try:
            self._run(self.python, "-m", "venv", str(target))
            self._run(self.interpreter, "-m", "pip", "install", "-q", "-r", self._requirements())
            state |= json.loads(self._run(self.interpreter, "-c", _MEASURE))
        except (OSError, subprocess.CalledProcessError) as error:
            text = getattr(error, "stderr", None) or str(error)
            lines = [line for line in text.splitlines() if line.strip()]
            reason = next((line for line in lines if "ERROR" in line), lines[-1])
            # Without "requirements": the next call tries again.
            state = {"error": f"the environment could not be made: {reason.strip()}"}
        target.mkdir(parents=True, exist_ok=True)
        (target / "state.json").write_text(json.dumps(state))

    def state(self) -> dict[str, Any]:
        """Return what was measured when it was made: "python", "bytes", "packages"; or "error"."""
        path = self.folder / self.name / "state.json"
        if not path.is_file():
            return {"error": "there is no environment; run this with --make-envs"}
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def _requirements(self) -> Path:
        return PEERS / f"{self.name}.txt"

    def _run(self, *command: object) -> str:
        print(*command, file=sys.stderr, flush=True)
        done = subprocess.run(
            [str(part) for part in command], check=True, capture_output=True, text=True, cwd=PEERS
        )
        return done.stdout
