"""Records the interface of TensorRT's versions: python tools/tensorrt_surface.py [VERSION...].

The bindings are one extension module per version, and their wheels are small; the libraries that
they are linked to are not, and are not to be had everywhere. They take few functions from them,
none of which is called when the module is imported. So empty libraries with these names are made
with the C compiler, the module is imported in a process of its own, and what is there is written
to tests/runtimes/surfaces/NAME-VERSION.txt: a line per class, of its attributes; those whose text
names a class of the module as what they give have it after a colon. The line of the module itself
begins with a dot.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "tests" / "runtimes" / "surfaces"

# What the targets can meet: JetPack 6 has 10.3, JetPack 7 has 10.13 and 10.16 (targets/jetpack.py),
# servers have what is installed, TensorRT 11 too, and PCs TensorRT-RTX from the first that the
# extra allows and the index has. CUDA 13 has bindings of its own from 10.13.2.
VERSIONS: Final = {
    "10.3.0": "tensorrt-cu12-bindings",
    "10.13.3.9": "tensorrt-cu13-bindings",
    "10.14.1.48.post1": "tensorrt-cu13-bindings",
    "10.15.1.29": "tensorrt-cu13-bindings",
    "10.16.1.11": "tensorrt-cu13-bindings",
    "11.0.0.114": "tensorrt-cu13-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
    "1.4.0.76": "tensorrt-rtx-cu12-bindings",
    "1.7.1.116": "tensorrt-rtx-cu12-bindings",
}

_NEEDED = re.compile(r"\(NEEDED\).*\[(lib(?:nv|tensorrt)[^]]*)\]")
_OURS = re.compile(r"\bU ((?:create|get|init)\w*)$", re.MULTILINE)

# What the process that imports the bindings runs: {class: {attribute: class that it gives, or ""}}.
_READ: Final = r"""
import importlib, json, re, sys

module = importlib.import_module(sys.argv[1])
public = lambda owner: [name for name in dir(owner) if not name.startswith("_")]
classes = {}

def collect(prefix, owner):
    for name in public(owner):
        value = getattr(owner, name)
        own = isinstance(value, type) and value.__module__.startswith(sys.argv[1])
        if own and value not in classes.values():
            classes[prefix + name] = value
            collect(prefix + name + ".", value)

def gives(owner, name):
    value = getattr(owner, name)
    if type(value) in classes.values():
        return type(value).__qualname__
    value = getattr(value, "fget", None) or value
    found = re.search(r"-> (\S+)", getattr(value, "__doc__", "") or "")
    last = found[1].rpartition(".")[2] if found else ""
    return last if last in classes else ""

collect("", module)
surface = {name: {a: gives(c, a) for a in public(c)} for name, c in classes.items()}
surface["."] = {name: gives(module, name) for name in public(module)}
json.dump(surface, sys.stdout)
"""


def main() -> None:
    """Record the versions that are named, or all."""
    FOLDER.mkdir(exist_ok=True)
    for version in sys.argv[1:] or VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            module, surface = record(VERSIONS[version], version, Path(folder))
        name = "tensorrt-rtx" if "rtx" in module else "tensorrt"
        path = FOLDER / f"{name}-{version}.txt"
        path.write_text("".join(_line(owner, names) for owner, names in sorted(surface.items())))
        print(f"{path.name}: {len(surface)} classes")


def _line(owner: str, names: dict[str, str]) -> str:
    told = (f"{name}:{given}" if given else name for name, given in sorted(names.items()))
    return f"{owner} {' '.join(told)}\n"


def record(distribution: str, version: str, folder: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """Return the name of the module and its interface."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", folder, f"{distribution}=={version}"], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (extension,) = (p for p in folder.glob("*/*.so") if p.parent.name.endswith("_bindings"))
    libraries = stand_ins(extension, folder / "libraries")
    module = extension.parent.name
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _READ, module],
        env=os.environ | {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(libraries)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{distribution} {version} does not import: {done.stderr[-2000:]}")
    return module, json.loads(done.stdout)


def stand_ins(extension: Path, folder: Path) -> Path:
    """Make empty libraries of the names that the extension is linked to."""
    folder.mkdir()
    needed = _NEEDED.findall(_output("readelf", "--dynamic", "--wide", str(extension)))
    functions = _OURS.findall(_output("nm", "--dynamic", "--undefined-only", str(extension)))
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
    for name in needed:
        library = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        subprocess.run(["cc", *library, str(source)], check=True)
    return folder


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
