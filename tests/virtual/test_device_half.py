"""The device half's own tests, on the Pi's Python and its instruction set."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecls.devices.virtual import VirtualPi

ROOT = Path(__file__).parents[2]
TESTS = ("core", "bundle", "runtimes", "devices/test_doctor.py")
# They start many processes, a second each there, and try the file system, which is this machine's.
LEFT_OUT = "not (kill or full_disk or several_writers)"

pytestmark = pytest.mark.slow


def test_the_device_halfs_tests_pass_there(patient_pi: VirtualPi) -> None:
    done = patient_pi.run(
        ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow",
         "-k", LEFT_OUT, *(f"tests/{name}" for name in TESTS)],
        folder=ROOT,
        environment={"PYTHONDONTWRITEBYTECODE": "1", "EDGECLS_EXAMPLES": "20"},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed > 350


def test_it_says_what_it_is(pi: VirtualPi) -> None:
    code = "import platform, sys; print(platform.machine(), sys.version_info[:2])"
    done = pi.run(["python3", "-c", code])

    assert done.returncode == 0, done.stderr
    major, minor = pi.release.python.split(".")
    assert done.stdout == f"aarch64 ({major}, {minor})\n"


def test_it_sees_little_of_this_machine(pi: VirtualPi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    done = pi.run(["python3", "-c", "import os, sys; print(*sorted(os.environ)); print(*sys.path)"])

    names, path = done.stdout.splitlines()
    assert "SECRET" not in names
    assert all(part.startswith(str(pi.root)) for part in path.split())
