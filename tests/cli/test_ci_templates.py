"""The CI templates and their page: valid YAML whose edgecls commands are ones that we have."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from edgecls.cli.main import edgecls as group

ROOT = Path(__file__).parents[2]
CI = ROOT / "examples" / "ci"
TARGETS = ("raspberry-pi", "jetson")


def github_job() -> dict[str, Any]:
    found = yaml.safe_load((CI / "github.yml").read_text())["jobs"]["drift"]
    assert isinstance(found, dict)
    return found


def gitlab_job() -> dict[str, Any]:
    found = yaml.safe_load((CI / "gitlab.yml").read_text())["edgecls"]
    assert isinstance(found, dict)
    return found


def commands(script: str) -> Iterator[list[str]]:
    """Yield the arguments of every edgecls command of a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if words[:1] == ["edgecls"]:
            yield words[1:]


def in_templates() -> list[list[str]]:
    found = []
    for target in TARGETS:
        for step in github_job()["steps"]:
            script = step.get("run", "").replace("${{ matrix.target }}", target)
            assert "${{" not in script
            found += commands(script)
        for script in gitlab_job()["script"]:
            found += commands(script.replace("$TARGET", target))
    return found


def in_docs() -> list[list[str]]:
    text = (ROOT / "docs" / "ci.md").read_text()
    return [*commands("\n".join(re.findall(r"^(?: {4}| {7})(edgecls .*)$", text, re.MULTILINE)))]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's repository with all the files that the templates name, and nothing in them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/calibration", "data/validation", "drift", "weights", "out"):
        (tmp_path / folder).mkdir(parents=True)
    files = ("weights/lite0.safetensors", "labels.txt", *(f"drift/{name}.json" for name in TARGETS))
    for name in files:
        (tmp_path / name).write_text("")
    (tmp_path / "edgecls.toml").write_bytes((CI / "edgecls.toml").read_bytes())
    return tmp_path


def parse(arguments: list[str]) -> click.Context:
    """Parse a command line as the command itself would; click checks paths and values."""
    with group.make_context("edgecls", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, list(arguments))
        assert command is not None
        return command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("arguments", in_templates() + in_docs(), ids=" ".join)
def test_every_command_line_parses(repository: Path, arguments: list[str]) -> None:
    parse(arguments)


@pytest.mark.parametrize("arguments", [["drift", "--basline", "x"], ["export", "--target", "pi"]])
def test_a_wrong_command_line_does_not(repository: Path, arguments: list[str]) -> None:
    with pytest.raises(click.ClickException):
        parse(arguments)


def test_all_commands_were_found() -> None:
    names = [arguments[0] for arguments in in_templates()]

    assert names == ["export", "drift", "export", "drift"] * len(TARGETS)
    assert len(in_docs()) >= 8


@pytest.mark.parametrize("target", TARGETS)
def test_the_file_gives_the_budgets(repository: Path, target: str) -> None:
    lines = [line for line in in_templates() if line[:2] == ["drift", f"out/{target}"]]

    assert len(lines) == 2
    for line in lines:
        given = parse(line).params
        assert (given["max_drop"], given["min_agreement"]) == (1.0, 97)
        assert given["data"] == Path("data/validation")
        assert {path.suffix for path in given["reports"]} == {
            ".md", ".json", ".xml", ".sarif", ".html",
        }  # fmt: skip


def test_github_keeps_what_drift_writes() -> None:
    steps = {step["name"]: step for step in github_job()["steps"] if "name" in step}
    written = set(re.findall(r"reports/drift\.\w+", steps["Drift"]["run"]))

    assert github_job()["strategy"]["matrix"]["target"] == list(TARGETS)
    assert "GITHUB_STEP_SUMMARY" in steps["Summary"]["run"]
    assert re.findall(r"reports/drift\.\w+", steps["Summary"]["run"]) == ["reports/drift.md"]
    assert steps["Code scanning"]["with"]["sarif_file"] in written
    assert "reports/drift.xml" in written
    assert "reports/" in steps["Keep the reports"]["with"]["path"].split()
    for name in ("Summary", "Keep the reports", "Code scanning"):
        assert "!cancelled()" in steps[name]["if"], "also where the gate failed"


def test_gitlab_keeps_what_drift_writes() -> None:
    job = gitlab_job()

    assert job["parallel"]["matrix"] == [{"TARGET": list(TARGETS)}]
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"] == "reports/drift-*.xml"
    assert 'reports/drift-$TARGET.xml"' in job["script"][1]
    assert "body@reports/drift-$TARGET.md" in job["after_script"][0]
