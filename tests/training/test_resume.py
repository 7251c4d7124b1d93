"""An interrupted training gives the numbers of one that was not, to the last bit."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecls.core.errors import CheckpointError
from edgecls.training import Fit, Settings
from edgecls.training.checkpoint import State, save_state

Make = Callable[..., Fit]
Tiny = Callable[..., torch.nn.Sequential]

KINDS = (
    Settings(epochs=4, batch=16),
    Settings(epochs=4, batch=16, optimizer="adamw", ema=0.9, clip_norm=1.0, schedule="cosine"),
    Settings(epochs=4, batch=16, optimizer="adam", schedule="step", warmup=1.0, patience=3),
)
FILES = ("metrics.csv", "model.safetensors")


def disturbed(batches: Callable[[int], Any], epoch: int, step: int) -> Callable[[int], Any]:
    """Return batches during which someone presses Ctrl-C."""

    def train(now: int) -> Iterator[Any]:
        for index, batch in enumerate(batches(now)):
            if (now, index) == (epoch, step):
                signal.raise_signal(signal.SIGINT)
            yield batch

    return train


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.optimizer)
@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 5), (2, 3), (3, 5)])
def test_ctrl_c_at_any_step(
    make_fit: Make, tiny: Tiny, tmp_path: Path, settings: Settings, epoch: int, step: int
) -> None:
    whole, parts = tiny(), tiny()
    expected = make_fit(settings, tmp_path / "whole")(whole)
    fit = make_fit(settings, tmp_path / "parts")
    handler = signal.getsignal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_fit(settings, fit.out, train=disturbed(fit.train, epoch, step))(parts)
    found = fit(tiny(), resume=True)

    assert found == expected
    for name in FILES:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    ours, theirs = (
        torch.load(tmp_path / place / "last.ckpt", weights_only=True)
        for place in ("parts", "whole")
    )
    assert all(torch.equal(ours["state_dict"][n], t) for n, t in theirs["state_dict"].items())
    assert signal.getsignal(signal.SIGINT) is handler


SCRIPT = """
import importlib.util, os, signal, sys
from pathlib import Path
import torch
from edgecls.training import Fit, Settings, in_memory
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("problem", sys.argv[1])
problem = importlib.util.module_from_spec(spec); spec.loader.exec_module(problem)
out, kill, resume = Path(sys.argv[2]), sys.argv[3] == "kill", sys.argv[3] == "resume"
settings = Settings(epochs=4, batch=16, ema=0.9)
batches, steps = in_memory(problem.stripes(96), problem.PLAIN, settings)
def train(epoch):
    for step, batch in enumerate(batches(epoch)):
        if kill and (epoch, step) == (2, 3): os.kill(os.getpid(), signal.SIGKILL)
        yield batch
judge = problem.stripes(60, seed=1)
Fit(settings=settings, train=train, steps_per_epoch=steps, out=out,
    val=lambda: [(problem.PLAIN.normalize(judge.pixels), judge.labels)],
)(problem.make_tiny(), resume=resume)
"""


@pytest.mark.slow
def test_kill_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """SIGKILL leaves no time to save: the running epoch is done again."""

    def run(out: str, how: str) -> int:
        problem = Path(__file__).with_name("conftest.py")
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, problem, tmp_path / out, how], check=False
        ).returncode

    assert run("whole", "once") == 0
    assert run("parts", "kill") == -signal.SIGKILL
    assert len((tmp_path / "parts" / "metrics.csv").read_text().splitlines()) == 3
    assert run("parts", "resume") == 0

    for name in FILES:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_finished_training_has_nothing_to_do(make_fit: Make, tiny: Tiny, tmp_path: Path) -> None:
    fit = make_fit(Settings(epochs=2, batch=16), tmp_path)
    first, second = tiny(), tiny()
    expected = fit(first)
    before = (tmp_path / "last.ckpt").stat().st_mtime_ns

    assert fit(second, resume=True) == expected
    assert torch.equal(first[0].weight, second[0].weight)
    assert (tmp_path / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("identity", "difference"),
    [
        ({"architecture": "b"}, "architecture is 'a' there, 'b' here"),
        ({"architecture": "a", "settings": {"epochs": 9}}, "settings is None there"),
    ],
)
def test_a_checkpoint_of_another_training(
    make_fit: Make, tiny: Tiny, tmp_path: Path, identity: dict[str, Any], difference: str
) -> None:
    settings = Settings(epochs=1, batch=16)
    make_fit(settings, tmp_path, identity={"architecture": "a"})(tiny())
    before = (tmp_path / "last.ckpt").read_bytes()

    with pytest.raises(CheckpointError, match=difference):
        make_fit(settings, tmp_path, identity=identity)(tiny(), resume=True)

    assert (tmp_path / "last.ckpt").read_bytes() == before


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("damage", ["empty", "truncated", "evil", "foreign", "bare"])
def test_a_checkpoint_that_is_none(
    make_fit: Make, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = make_fit(Settings(epochs=1, batch=16), tmp_path)
    fit(tiny())
    file = tmp_path / "last.ckpt"
    data = file.read_bytes()
    if damage in {"empty", "truncated"}:
        file.write_bytes(data[: len(data) // 2 if damage == "truncated" else 0])
    else:
        content = torch.load(file, weights_only=True)
        changed = {
            "evil": {**content, "optimizer": Evil()},
            "foreign": {**content, "format": "other"},
            "bare": content["state_dict"],
        }
        torch.save(changed[damage], file)

    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        fit(tiny(), resume=True)

    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_the_systems_error(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"old")
    state = State(identity={}, module={"weight": torch.zeros(100_000)}, optimizer={})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_state(state, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [
        (file.name, b"old")
    ]
