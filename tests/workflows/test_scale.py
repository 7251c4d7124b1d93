"""The same report from any number of workers, through deaths and interruptions."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgecls.core.errors import BadInputError, DataError, MissingError
from edgecls.core.progress import Quiet
from edgecls.drift import Budgets, Skipped
from edgecls.drift.partial import Partial
from edgecls.runtimes import load
from edgecls.workflows import resume
from edgecls.workflows.answering import DataOptions, gather
from edgecls.workflows.drift import DriftOptions, drift, save_baseline
from edgecls.workflows.matrix import matrix
from edgecls.workflows.processes import run_processes
from edgecls.workflows.scale import Scale
from edgecls.workflows.shards import SHARD, Job, Shards, Worker
from edgecls.workflows.sources import Live, from_predictor

if TYPE_CHECKING:
    from ..conftest import Digits

IMAGES = 5 * SHARD + 3
BUDGETS = Budgets(max_drop=2.0, max_ece_rise=5.0)


@pytest.fixture(scope="module")
def data(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits of every class, an unreadable file among them."""
    root = tmp_path_factory.mktemp("scale") / "data"
    for image in sorted(digits.judged.rglob("*.png"))[::5][:IMAGES]:
        target = root / image.relative_to(digits.judged)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target)
    next(root.iterdir()).joinpath("broken.png").write_bytes(b"no image")
    return root


def readable(data: Path, folder: Path) -> Path:
    """A copy, with the files' times of change, without what cannot be read."""
    shutil.copytree(data, folder / "copy", ignore=shutil.ignore_patterns("broken.png"))
    return folder / "copy"


@pytest.fixture(scope="module")
def pi(digits: Digits) -> Live:
    return from_predictor(load(digits.bundle("raspberry-pi"), threads=1))


@pytest.fixture
def options(digits: Digits, data: Path) -> DriftOptions:
    return DriftOptions(
        reference=str(digits.bundle("jetson")), data=DataOptions(data=data), budgets=BUDGETS
    )


@pytest.fixture(scope="module")
def work(digits: Digits, data: Path, pi: Live) -> tuple[Job, Shards, bytes]:
    """A job, its shards, and what they give in this process."""
    sources = [pi, from_predictor(load(digits.bundle("jetson"), allow_fallback=True, threads=1))]
    job = Job(sources=tuple(source.spec for source in sources), keep=True)
    shards = Shards(found=gather(sources, DataOptions(data=data), Quiet()))
    worker, total = Worker(job=job, sources=sources), Partial()
    for shard in shards:
        total.merge(worker(shard))
    return job, shards, canonical(total)


def canonical(partial: Partial) -> bytes:
    """A partial result's bytes; its lists come in the order of the merges."""
    partial.kept = dict(sorted(partial.kept.items()))
    partial.skipped.sort(key=lambda item: item.image)
    flips = partial.comparison._flips.result()
    found: dict[str, Any] = json.loads(partial.to_json())
    found["comparison"]["_flips"] = msgspec.to_builtins(flips)
    confusion = found["comparison"].get("_confusion", {}).get("cells", [])
    confusion.sort()
    return json.dumps(found).encode()


def merged(results: Iterable[tuple[int, Partial]]) -> bytes:
    total = Partial()
    for _, partial in results:
        total.merge(partial)
    return canonical(total)


@pytest.mark.parametrize("workers", [2, 3])
def test_processes_give_the_same_report(pi: Live, options: DriftOptions, workers: int) -> None:
    here = drift(pi, options, Quiet())
    there = drift(pi, replace(options, scale=Scale(workers=workers)), Quiet())

    assert here.metrics.images == IMAGES
    assert [item.image.rpartition("/")[2] for item in here.skipped] == ["broken.png"]
    assert there == here


def test_processes_give_the_same_baseline_and_matrix(
    pi: Live, digits: Digits, data: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    scale, images = Scale(workers=2), DataOptions(data=readable(data, tmp_path))
    first = save_baseline(pi, images, one, Quiet())
    second = save_baseline(pi, images, two, Quiet(), scale)
    against = DriftOptions(baseline=one, data=images, budgets=BUDGETS)
    sources = [pi, from_predictor(load(digits.bundle("jetson"), allow_fallback=True, threads=1))]

    assert one.read_bytes() == two.read_bytes()
    assert first == second
    assert drift(pi, against, Quiet()) == drift(pi, replace(against, scale=scale), Quiet())
    assert matrix(sources, images, Quiet()) == matrix(sources, images, Quiet(), scale)


def test_processes_open_paths_that_are_not_utf8(
    digits: Digits, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = Path(os.fsdecode(b"bund\xffle"))
    shutil.copytree(digits.bundle("raspberry-pi"), bundle)
    live = from_predictor(load(bundle, threads=1))
    images = DataOptions(data=readable(data, tmp_path))
    baseline, scale = Path(os.fsdecode(b"b\xff.json")), Scale(workers=2, resume=Path("progress"))
    save_baseline(live, images, baseline, Quiet())
    options = DriftOptions(baseline=baseline, data=images, budgets=BUDGETS)
    here, there = (drift(live, replace(options, scale=s), Quiet()) for s in (Scale(), scale))

    assert here.metrics.images == here.metrics.agreed == IMAGES
    assert there == here
    job = Job(sources=(msgspec.structs.replace(live.spec, sha256="0" * 64),))
    shards = Shards(found=gather([live], images, Quiet()))
    with pytest.raises(BadInputError, match=r"bund\\udcffle is not the same to every worker"):
        list(run_processes(job, shards, 1))


def test_a_killed_worker_changes_nothing(work: tuple[Job, Shards, bytes]) -> None:
    job, shards, expected = work
    running = run_processes(job, shards, 2)
    results = [next(running)]
    victims = [child.pid for child in multiprocessing.active_children()]
    for pid in victims:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    results += running

    assert len(victims) == 2
    assert sorted(index for index, _ in results) == list(range(len(shards)))
    assert merged(results) == expected
    assert not multiprocessing.active_children()


def test_a_shard_that_kills_every_worker_is_given_up(work: tuple[Job, Shards, bytes]) -> None:
    job, shards, _ = work
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.05):
            for child in multiprocessing.active_children():
                child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(MissingError, match=r"3 workers died at the images .* SIGKILL"):
            list(run_processes(job, shards, 1))
    finally:
        stop.set()
        killer.join()

    assert not multiprocessing.active_children()


def test_a_workers_error_keeps_its_exit_code(work: tuple[Job, Shards, bytes]) -> None:
    job, shards, _ = work
    other = msgspec.structs.replace(job.sources[1], sha256="0" * 64)
    changed = msgspec.structs.replace(job, sources=(job.sources[0], other))

    with pytest.raises(BadInputError, match="not the same to every worker") as raised:
        list(run_processes(changed, shards, 2))
    assert raised.value.exit_code == 4
    assert not multiprocessing.active_children()


def test_stopping_early_leaves_no_process(work: tuple[Job, Shards, bytes]) -> None:
    job, shards, _ = work
    running = run_processes(job, shards, 2)
    next(running)
    running.close()

    assert not multiprocessing.active_children()


class Interrupted(Quiet):
    """Ctrl-C after so many shards; counts those that it lets through."""

    def __init__(self, after: int | None) -> None:
        self.after = after
        self.taken = 0
        self.notes: list[str] = []

    def track(
        self, items: Iterable[Any], description: str, total: int | None = None
    ) -> Iterator[Any]:
        for item in items:
            if self.taken == self.after:
                raise KeyboardInterrupt
            self.taken += 1
            yield item

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_goes_on(
    pi: Live, options: DriftOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(resume, "EVERY_S", 0.0)
    monkeypatch.setattr(resume, "PART_OF_TIME", 1e9)
    file = tmp_path / "progress.json"
    scaled = replace(options, scale=Scale(resume=file, workers=workers))
    with pytest.raises(KeyboardInterrupt):
        drift(pi, scaled, Interrupted(2))
    again, third = Interrupted(None), Interrupted(None)
    found, at_once = drift(pi, scaled, again), drift(pi, scaled, third)

    assert again.notes[-1].endswith("2 of 6 parts are done already")
    assert (again.taken, third.taken) == (4, 0)
    assert found == at_once == drift(pi, options, Quiet())
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "what", ["candidate", "reference", "baseline", "data", "ground truth", "options"]
)
def test_a_file_of_another_run_is_refused(
    digits: Digits, pi: Live, options: DriftOptions, data: Path, tmp_path: Path, what: str
) -> None:
    copy = readable(data, tmp_path)
    images = DataOptions(data=copy)
    begun = replace(options, data=images, scale=Scale(resume=tmp_path / "progress.json"))
    with pytest.raises(KeyboardInterrupt):
        drift(pi, begun, Interrupted(1))
    candidate, changed, said = pi, begun, f"changed.* the {what}"
    if what == "candidate":
        candidate = from_predictor(load(digits.bundle("jetson"), allow_fallback=True, threads=1))
    elif what == "reference":
        changed = replace(begun, reference=str(digits.bundle("raspberry-pi")))
    elif what == "baseline":
        save_baseline(pi, images, tmp_path / "b.json", Quiet())
        changed, said = replace(begun, reference=None, baseline=tmp_path / "b.json"), "reference"
    elif what == "data":
        image = min(copy.rglob("*.png"))
        os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
    elif what == "ground truth":
        names = [path.relative_to(copy).as_posix() for path in copy.rglob("*.png")]
        classes = [{"file": name, "class_index": 1} for name in names]
        (tmp_path / "truth.json").write_text(json.dumps(classes))
        changed = replace(begun, data=replace(images, truth=tmp_path / "truth.json"))
    else:
        changed = replace(begun, budgets=Budgets(max_drop=3.0, max_ece_rise=5.0))

    with pytest.raises(DataError, match=said) as raised:
        drift(candidate, changed, Quiet())
    assert "nothing was run" in str(raised.value)


@pytest.mark.parametrize("how", ["other", "damaged", "fewer done", "newer"])
def test_a_file_that_cannot_be_used_is_refused(
    pi: Live, options: DriftOptions, tmp_path: Path, how: str
) -> None:
    file = tmp_path / "progress.json"
    begun = replace(options, scale=Scale(resume=file))
    with pytest.raises(KeyboardInterrupt):
        drift(pi, begun, Interrupted(1))
    document = json.loads(file.read_bytes())
    if how == "damaged":
        document["partial"]["images"] += 1
    elif how == "fewer done":  # its shards would be counted twice
        assert document["done"] == [[0, 0]]
        document["done"] = []
    elif how == "newer":
        document["schema_version"] += 1
    else:
        document = {"some": "file"}
    file.write_text(json.dumps(document))

    with pytest.raises(DataError, match="--resume"):
        drift(pi, begun, Quiet())


def test_a_count_that_the_parts_done_do_not_have_is_refused(tmp_path: Path) -> None:
    file, images = tmp_path / "progress.json", 2 * SHARD + 3
    kept = resume.Resume(file, {}, images)
    kept.add(0, Partial(images=SHARD))
    kept.add(2, Partial(images=2, skipped=[Skipped(image="a.png", reason="damaged")]))
    kept.write()

    assert resume.Resume(file, {}, images).done == {0, 2}
    kept.add(1, Partial(images=SHARD - 1))
    kept.write()
    with pytest.raises(DataError, match=rf"have {images} images, it has counted {images - 1}"):
        resume.Resume(file, {}, images)


@pytest.mark.slow
def test_a_killed_command_goes_on(digits: Digits, data: Path, tmp_path: Path) -> None:
    """SIGKILL of the command itself: its workers end too, and the report is that of one run."""
    command = [
        sys.executable, "-m", "edgecls", "drift", digits.bundle("raspberry-pi"), "--reference",
        digits.bundle("jetson"), "--data", data, "--json", "--workers", "2",
    ]  # fmt: skip
    resumable = [*command, "--resume", tmp_path / "progress.json"]
    first = subprocess.Popen(
        resumable, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not (tmp_path / "progress.json").exists():
        assert first.poll() is None
        time.sleep(0.005)
    first.kill()
    first.wait()
    while alive(first.pid):
        time.sleep(0.05)
    second = subprocess.run(resumable, capture_output=True, check=False)
    whole = subprocess.run(command, capture_output=True, check=False)

    assert b"parts are done already" in second.stderr
    assert second.stdout == whole.stdout
    assert second.returncode == whole.returncode


def alive(session: int) -> bool:
    """Whether a process of the session still runs."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False
