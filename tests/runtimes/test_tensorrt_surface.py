"""Holds what our code names of TensorRT against every version's own interface.

`surfaces/` is written by tools/tensorrt_surface.py from each version's bindings. The code is read,
not run: what a name stands for follows from what the bindings say that a call gives, and from the
table below where they do not say. Uses that `hasattr` asks for first may be missing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import edgecls.runtimes

from .test_tensorrt import FakeTensorRT

RUNTIMES: Final = Path(edgecls.runtimes.__file__).parent
FILES: Final = sorted(RUNTIMES.glob("tensorrt*.py"))
Surface = dict[str, dict[str, str]]

# What the bindings do not tell: our parameters, and what our own functions give. "." is the module.
NAMES: Final = {
    "trt": ".", "loaded": ".", "builder": "Builder", "config": "IBuilderConfig",
    "network": "INetworkDefinition", "parser": "OnnxParser", "error": "ParserError",
    "free_batch": "IOptimizationProfile", "engine": "ICudaEngine", "log": "ILogger",
    "severity": "ILogger.Severity",
}  # fmt: skip
GIVES: Final = {"import_api": ".", "make_logger": "ILogger", "_load": "ICudaEngine",
                "_cached": "ICudaEngine"}  # fmt: skip
OWN: Final = {("ILogger", "errors")}


def read(file: Path) -> Surface:
    surface = {}
    for line in file.read_text().splitlines():
        owner, *names = line.split(" ")
        surface[owner] = dict((*name.split(":"), "")[:2] for name in names if name)
    return surface


SURFACES: Final = {file.stem: read(file) for file in Path(__file__).parent.glob("surfaces/*.txt")}


def missing(source: str, surface: Surface) -> list[str]:
    """Return what a module's source uses of TensorRT and a version lacks."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            found += [f"{owner} has no {name}" for owner, name in _uses(function, surface)]
    return sorted(set(found))


def _uses(function: ast.FunctionDef, surface: Surface) -> Iterator[tuple[str, str]]:
    known = dict(NAMES)
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            given = _class(node.value, known, surface)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if given:
                    known[ast.unparse(target)] = given
    asked = {
        (ast.unparse(node.args[0]), node.args[1].value)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"hasattr", "getattr"}
        and isinstance(node.args[1], ast.Constant)
    }  # fmt: skip
    for node in ast.walk(function):
        if not isinstance(node, ast.Attribute) or node.attr.startswith("__"):
            continue
        owner = _class(node.value, known, surface)
        if owner is None or (ast.unparse(node.value), node.attr) in asked:
            continue
        if (owner, node.attr) not in OWN and node.attr not in surface.get(owner, {}):
            yield owner, node.attr


def _class(node: ast.expr, known: dict[str, str], surface: Surface) -> str | None:
    """Return the class of an expression; of a class itself, its name; None is not TensorRT's."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.IfExp):
        return _class(node.body, known, surface)
    if isinstance(node, ast.Call):
        called = node.func
        if ast.unparse(called).rpartition(".")[2] in GIVES:
            return GIVES[ast.unparse(called).rpartition(".")[2]]
        return _class(called, known, surface) if isinstance(called, ast.Attribute) else None
    if isinstance(node, ast.Attribute):
        if (text := ast.unparse(node)) in known:
            return known[text]
        owner = _class(node.value, known, surface)
        if owner is None:
            return None
        nested = node.attr if owner == "." else f"{owner}.{node.attr}"
        return nested if nested in surface else surface.get(owner, {}).get(node.attr) or None
    return None


def test_every_version_that_the_targets_can_meet_is_recorded() -> None:
    lines = {name.rpartition("-")[0] + " " + ".".join(name.rpartition("-")[2].split(".")[:2])
             for name in SURFACES}  # fmt: skip

    assert {"tensorrt 10.3", "tensorrt 10.13", "tensorrt 10.16", "tensorrt 11.4"} <= lines
    assert {"tensorrt-rtx 1.4", "tensorrt-rtx 1.7"} <= lines
    assert all(len(surface) > 150 and len(surface["."]) > 150 for surface in SURFACES.values())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("version", sorted(SURFACES))
def test_our_code_names_only_what_a_version_has(file: Path, version: str) -> None:
    found = missing(file.read_text(), SURFACES[version])

    assert not found, f"{file.name} against {version}: {'; '.join(found)}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_object_of_tensorrt_goes_unread(file: Path) -> None:
    """A parameter of any type is in the table, so that a new one is checked too."""
    others = {"stream"}
    parameters = {
        argument.arg
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef)
        for argument in function.args.args + function.args.kwonlyargs
        if argument.annotation is not None and ast.unparse(argument.annotation) == "Any"
    }

    assert parameters <= set(NAMES) | others


@pytest.mark.parametrize("version", sorted(SURFACES))
def test_what_tensorrt_calls_of_ours_is_what_it_knows(version: str) -> None:
    """A method of ours under another name would never be called, and nothing would say so."""
    surface = SURFACES[version]
    ours = {
        base.attr: {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Attribute) and ast.unparse(base.value) == "trt"
    }
    unknown = {
        f"{owner}.{name}"
        for owner, names in ours.items()
        for name in names - set(surface.get(owner, names))
        if not name.startswith("_")
    }

    assert set(ours) == {"ILogger", "IProgressMonitor", "IInt8EntropyCalibrator2"}
    # TensorRT does not call these.
    assert unknown <= {"IProgressMonitor.close", "IProgressMonitor.stop"}


def test_the_real_uses_are_found() -> None:
    seen: Surface = {name: {} for name in SURFACES["tensorrt-10.3.0"]}
    seen["."] = SURFACES["tensorrt-10.3.0"]["."]
    used = [use for file in FILES for use in missing(file.read_text(), seen)]

    assert "ICudaEngine has no get_tensor_mode" in used
    assert "IOptimizationProfile has no set_shape" not in used, "its class came from Builder"
    given = {name: dict.fromkeys(names, "") for name, names in SURFACES["tensorrt-10.3.0"].items()}
    given["Builder"] = SURFACES["tensorrt-10.3.0"]["Builder"]
    given["IOptimizationProfile"] = {}
    build = (RUNTIMES / "tensorrt_build.py").read_text()
    assert "IOptimizationProfile has no set_shape" in missing(build, given)


PLANTED = {
    "gone in 10": ("builder.build_engine(network, config)", "Builder has no build_engine"),
    "gone in 11": ("config.set_flag(trt.BuilderFlag.INT8)", "BuilderFlag has no INT8"),
    "behind a call": ("made = trt.Runtime(log)\n    made.nonsense()", "Runtime has no nonsense"),
    "behind two": (
        "context = trt.Runtime(log).deserialize_cuda_engine(b'').create_execution_context()\n"
        "    context.execute_v9()",
        "IExecutionContext has no execute_v9",
    ),
    "of an enum": ("trt.TensorIOMode.SIDEWAYS", "TensorIOMode has no SIDEWAYS"),
    "of the module": ("trt.NoSuchClass()", ". has no NoSuchClass"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_name_is_found(name: str) -> None:
    code, message = PLANTED[name]
    source = f"def f(trt, builder, network, config, log):\n    {code}\n"

    assert missing(source, SURFACES["tensorrt-11.4.0.106"]) == [message]
    asked_of = {"gone in 10": "builder, 'build_engine'", "gone in 11": "trt.BuilderFlag, 'INT8'"}
    if name in asked_of:
        body = code.replace("\n", "\n    ")
        guarded = f"def f(trt, builder, network, config, log):\n    if hasattr({asked_of[name]}):\n"
        assert not missing(f"{guarded}        {body}\n", SURFACES["tensorrt-11.4.0.106"])


def test_a_name_is_found_in_the_versions_that_lack_it() -> None:
    source = "def f(trt):\n    trt.BuilderFlag.INT8\n"

    lacking = {name for name, surface in SURFACES.items() if missing(source, surface)}

    assert lacking >= {"tensorrt-11.4.0.106", "tensorrt-rtx-1.7.1.116"}
    assert not lacking & {"tensorrt-10.3.0", "tensorrt-10.16.1.11"}


@pytest.mark.parametrize("version", sorted(SURFACES))
def test_the_stand_in_has_nothing_that_tensorrt_has_not(version: str) -> None:
    """What test_tensorrt.py tests with is no interface of its own."""
    surface = SURFACES[version]
    owners = (".", "Runtime", "ICudaEngine", "IExecutionContext")
    real = {name for owner in owners for name in surface[owner]}

    assert {name for name in dir(FakeTensorRT) if not name.startswith("_")} <= real
