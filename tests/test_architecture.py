"""Holds the table of docs/architecture.md: who may import whom, and what a device imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parent.parent

DEVICE_ROOMS = {"core", "targets", "bundle", "runtimes", "devices", "serve"}
ALL = {
    "core", "targets", "bundle", "runtimes", "devices", "serve", "models", "data", "export",
    "calibration", "training", "compress", "drift", "reports", "workflows", "cli",
}  # fmt: skip
MAY_IMPORT = {
    "core": set(),
    "targets": {"core"},
    "bundle": {"core", "targets"},
    "runtimes": {"core", "targets", "bundle"},
    "devices": {"core", "targets", "bundle", "runtimes"},
    "serve": {"core", "bundle", "runtimes"},
    "models": {"core"},
    "data": {"core", "runtimes"},
    "export": {"core", "targets"},
    "calibration": {"core", "targets"},
    "training": {"core", "models", "data"},
    "compress": {"core", "models", "data", "training", "calibration"},
    "drift": {"core", "data"},
    "reports": {"core", "data", "drift"},
    "workflows": ALL - {"cli"},
    "cli": ALL,
}
WORKSTATION = {"torch", "onnx", "onnx_ir", "onnxscript", "onnxsim", "scipy", "timm", "torchvision"}


def rooms() -> list[str]:
    return sorted(
        path.parent.name
        for path in ROOT.glob("*/__init__.py")
        if path.parent.name not in {"build", "tests"}
    )


def modules() -> list[Path]:
    return sorted(file for room in rooms() for file in (ROOT / room).rglob("*.py"))


def name_of(file: Path) -> str:
    parts = ("edgecls", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(file: Path) -> set[str]:
    """Return the full names of all that a file imports, also inside functions."""
    package = ["edgecls", *file.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{name}.{alias.name}" for alias in node.names}
    return found


def test_table_names_every_room() -> None:
    assert set(rooms()) == ALL


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_room_imports_only_what_it_may(file: Path) -> None:
    room = file.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[room] | {room}

    used = {name.split(".")[1] for name in imported_by(file) if name.startswith("edgecls.")}

    assert used & ALL <= allowed, f"{file} imports {used & ALL - allowed}"


def test_absolute_imports_of_ourselves_are_not_used() -> None:
    for file in modules():
        for node in ast.walk(ast.parse(file.read_text())):
            absolute = isinstance(node, ast.ImportFrom) and not node.level and node.module
            assert not (absolute and str(node.module).split(".")[0] == "edgecls"), file


def test_device_half_imports_nothing_of_the_workstation() -> None:
    names = [name_of(file) for file in modules() if file.relative_to(ROOT).parts[0] in DEVICE_ROOMS]
    workstation = sorted(f"edgecls.{room}" for room in ALL - DEVICE_ROOMS)
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"heavy = {sorted(WORKSTATION)!r}; rooms = {workstation!r}\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in heavy"
        " or any(m == r or m.startswith(r + '.') for r in rooms)]\n"
        "assert not bad, bad\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_command_line_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgecls.cli.main\n"
        f"bad = set(sys.modules) & {set(WORKSTATION) | {'numpy', 'ai_edge_litert'}!r}\n"
        "assert not bad, bad\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_every_package_is_listed_for_the_build() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    packages = {"edgecls"} | {name_of(file) for file in modules() if file.name == "__init__.py"}

    assert listed == packages


def test_every_other_file_of_a_package_is_listed_for_the_build() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = listed["package-data"]
    files = [file for room in rooms() for file in (ROOT / room).rglob("*") if file.is_file()]
    others = [file for file in files if file.suffix not in {".py", ".pyc"}]

    assert others, "the page's template"
    for file in others:
        folder = next(parent for parent in file.parents if (parent / "__init__.py").is_file())
        package = ".".join(["edgecls", *folder.relative_to(ROOT).parts])
        name = file.relative_to(folder)
        assert any(name.match(pattern) for pattern in patterns.get(package, [])), file


def test_constraints_pin_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert all("==" in line for line in lines if line and not line.startswith("#"))


def test_sources_name_no_machine() -> None:
    """Nothing in the project names a path of one machine."""
    for file in [*modules(), *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "Makefile"]:
        if file.exists():
            text = file.read_text()
            assert "/work" + "/" not in text, file
            assert "/root" + "/" not in text, file
