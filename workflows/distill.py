"""A student that learns from a teacher, beside one that learns from the labels alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np
import safetensors.torch
from numpy.typing import NDArray

from ..compress.distillation import Lesson, Objective, Watched
from ..core.errors import DataError, UsageError
from ..core.files import write_atomic
from ..core.preprocess import Preprocess
from ..core.progress import Progress, Quiet
from ..core.values import Logits, Pixels
from ..models import LoadedModel
from ..models.trained import WEIGHTS, TrainingRecord
from ..training import Epoch, Fit
from ..training.checkpoint import read_state
from ..training.distributed import Group, process_group
from ..training.loop import LAST
from ..training.plan import Plan
from .compared import Accuracy, Difference, Rights, accuracy, difference, rights
from .graph import run_torch
from .sources import torch_threads
from .teacher import Teacher, TeacherOptions, kept_answers, opened_teacher
from .train import (
    Prepared,
    TrainOptions,
    check_training_out,
    learn,
    memory_errors,
    planned,
    prepare,
)

Sees = Literal["same", "plain"]
SEES: Final[tuple[Sees, ...]] = get_args(Sees)
CONTROL: Final = "control"
COMPARISON: Final = "distillation.json"

OnEpoch = Callable[[str, Epoch], None]
"""Called with who learns and an epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """Who learns what from whom, as the command line has it.

    Attributes:
        train: The student, its data, and how it learns.
        teacher: Whose answers it learns.
        lesson: How much from what.
        sees: ``same``: the teacher is asked about each image as the student sees it; ``plain``:
            about the image without augmentation, once.
        cache: The folder for kept answers; None is ``train.out``.
        control: Whether the same student also learns from the labels alone, in ``OUT/control``.
    """

    train: TrainOptions
    teacher: TeacherOptions
    lesson: Lesson
    sees: Sees = "same"
    cache: Path | None = None
    control: bool = False


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table.

    Attributes:
        who: ``teacher``, ``student before``, ``control`` or ``distilled``.
        parameters: None of an ONNX graph.
        accuracy: On the images that judge.
        behind: ``distilled`` less this one, on the same images; None of ``distilled`` itself.
    """

    who: str
    parameters: int | None
    accuracy: Accuracy
    behind: Difference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillResult:
    """What a distillation gave.

    Attributes:
        rows: Who is how often right; none where no image judges.
        record: What ``train.json`` says.
        leads: Whether this process is the one that speaks.
    """

    rows: tuple[Judged, ...]
    record: TrainingRecord
    leads: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillPlan:
    """What a distillation would do.

    Attributes:
        student: The training.
        teacher_parameters: None of an ONNX graph.
        asked: How often the teacher answers, in images; kept answers count again.
        kept: Whether its answers are kept in a file.
        control: Whether the training is done twice.
    """

    student: Plan
    teacher_parameters: int | None
    asked: int
    kept: bool
    control: bool


def check_distill(options: DistillOptions) -> None:
    """Refuse what does not go together, whatever the models.

    Raises:
        UsageError: Something does not.
    """
    if options.train.data.augment.mixes:
        raise UsageError(
            "--mixup and --cutmix mix images that are normalised already, and their labels: a "
            "teacher's answers do not mix so; leave them out"
        )
    if options.lesson.hints and options.sees == "plain":
        raise UsageError(
            "--hint compares the features of one image: it goes with --teacher-sees same"
        )


def plan(options: DistillOptions, progress: Progress) -> DistillPlan:
    """Return what a distillation would do; nothing is written.

    Raises:
        EdgeclsError: What the distillation itself would raise before its first step.
    """
    with process_group(options.train.device) as group, torch_threads(options.train.threads):
        resume, _ = _check_out(options)
        ready = prepare(options.train, group, progress)
        with _opened(options, ready, group, progress) as room:
            if resume:
                read_state(
                    options.train.out / LAST, {**ready.identity, "distillation": room.identity}
                )
            student, kept = planned(ready, group), room.keeps
            parameters = room.teacher.parameters
    per_epoch = student.steps_per_epoch * options.train.settings.batch
    return DistillPlan(
        student=student,
        teacher_parameters=parameters,
        asked=student.images if kept else per_epoch * options.train.settings.epochs,
        kept=kept,
        control=options.control,
    )


def distill(
    options: DistillOptions, progress: Progress, on_epoch: OnEpoch | None = None
) -> DistillResult:
    """Train a student on its teacher's answers, and write OUT as ``train`` does.

    OUT also gets distillation.json, what is known of teacher, control and student on the same
    images; and teacher-KEY.npy, where answers are kept.

    Raises:
        EdgeclsError: With the cause's exit code; the last good checkpoint is kept.
        KeyboardInterrupt: It was asked to stop; what was done is saved.
    """
    train = options.train
    with (
        process_group(train.device) as group,
        memory_errors(train.settings),
        torch_threads(train.threads),
        contextlib.ExitStack() as stack,
    ):
        resume, resume_alone = _check_out(options)
        shown = progress if group.leads else Quiet()
        ready = prepare(train, group, shown)
        classroom = stack.enter_context(_opened(options, ready, group, shown))
        judges = _Judges(ready, group, classroom.pool)
        begun = None if ready.loaded.random_weights else judges.student()
        config = {**ready.record.config, "distillation": classroom.identity}
        ready = replace(ready, record=msgspec.structs.replace(ready.record, config=config))
        tell = on_epoch or _nobody
        result = learn(
            ready, group, shown, lambda epoch: tell("distilled", epoch), resume=resume,
            adapt=classroom.adapt,
        )  # fmt: skip
        classroom.close()
        control: Rights | None = None
        if options.control:
            shown.step("the control: the same student learns from the labels alone")
            other = prepare(_alone(train), group, Quiet(), ready.data.opened)
            learn(other, group, shown, lambda epoch: tell("control", epoch), resume=resume_alone)
            control = _Judges(other, group, classroom.pool).best()
        rows: tuple[Judged, ...] = ()
        if group.leads and ready.data.val is not None:
            shown.step("judge all on the same images")
            rows = _table(judges, classroom.teacher, begun, control)
            document = {"distillation": classroom.identity, "judged_by": result.record.val,
                        "rows": rows}  # fmt: skip
            encoded = msgspec.json.format(msgspec.json.encode(document), indent=2)
            write_atomic(train.out / COMPARISON, encoded + b"\n")
        return DistillResult(rows=rows, record=result.record, leads=group.leads)


def _alone(train: TrainOptions) -> TrainOptions:
    return replace(train, out=train.out / CONTROL)


def _check_out(options: DistillOptions) -> tuple[bool, bool]:
    """Return whether there is a student to go on with, and a control.

    Raises:
        UsageError: A folder holds something that would be lost.
    """
    check_distill(options)
    student = check_training_out(options.train)
    return student, options.control and check_training_out(_alone(options.train))


def _nobody(who: str, epoch: Epoch) -> None:
    del who, epoch


class _Classroom:
    """A teacher, a student, and what goes from one to the other."""

    def __init__(
        self, options: DistillOptions, ready: Prepared, teacher: Teacher, student: Watched | None,
        group: Group, pool: Executor, progress: Progress,
    ) -> None:  # fmt: skip
        self.options, self.ready, self.teacher, self.student = options, ready, teacher, student
        self.group, self.pool, self.progress = group, pool, progress

    @property
    def keeps(self) -> bool:
        """Whether the teacher is asked about each image once."""
        if self.options.lesson.hints:
            return False
        return self.options.sees == "plain" or not self.ready.data.augment.changes_images

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for the same numbers, beside the training's own."""
        found: dict[str, Any] = msgspec.to_builtins(
            {
                "teacher": self.teacher.name,
                "teacher_sha256": self.teacher.sha256,
                "teacher_preprocess": self.teacher.preprocess,
                "teacher_sees": "plain images, kept" if self.keeps else "the student's images",
                "temperature": self.options.lesson.temperature,
                "alpha": self.options.lesson.alpha,
                "hints": [list(pair) for pair in self.options.lesson.hints],
                "hint_weight": self.options.lesson.hint_weight,
            }
        )
        return found

    def adapt(self, training: Fit) -> Fit:
        """Return a training with the teacher in it."""
        batches = self._kept() if self.keeps else self._live
        return replace(
            training,
            train=batches,
            objective=Objective(lesson=self.options.lesson, student=self.student),
            identity={**training.identity, "distillation": self.identity},
        )

    def close(self) -> None:
        """Stop watching the student."""
        if self.student is not None:
            self.student.close()

    def _kept(self) -> Callable[[int], Iterator[tuple[NDArray[Any], ...]]]:
        data = self.ready.data
        answers = kept_answers(
            self.teacher, data, self.options.cache or self.options.train.out, self.group,
            self.pool, self.progress,
        )  # fmt: skip

        def batches(epoch: int) -> Iterator[tuple[NDArray[Any], ...]]:
            for loaded in data.loaded_to_learn(epoch, self.pool, self.group, self.progress):
                taught = np.asarray(answers[loaded.indices])
                unknown = np.isnan(taught).any(axis=1)
                if unknown.any():
                    name = data.train.name_of(int(loaded.indices[unknown][0]))
                    raise DataError(
                        f"{name}: the teacher has no answer to it, since it could not be read when "
                        "the teacher was asked; delete teacher-*.npy to ask again"
                    )
                yield loaded.images, loaded.labels, taught

        return batches

    def _live(self, epoch: int) -> Iterator[tuple[NDArray[Any], ...]]:
        data, teacher = self.ready.data, self.teacher
        for loaded in data.loaded_to_learn(
            epoch, self.pool, self.group, self.progress, normalize=False
        ):
            pixels: Pixels = loaded.images  # type: ignore[assignment]
            taught = teacher(pixels)
            maps = () if teacher.maps is None else teacher.maps.take()
            images = data.preprocess.normalize(pixels)
            yield (images, loaded.labels, taught, *(part.cpu().numpy() for part in maps))


@contextlib.contextmanager
def _opened(
    options: DistillOptions, ready: Prepared, group: Group, progress: Progress
) -> Iterator[_Classroom]:
    """Open the teacher, and refuse what does not go together.

    Raises:
        UsageError: Something does not.
        EdgeclsError: The teacher cannot be used.
    """
    data, lesson = ready.data, options.lesson
    mine, theirs = (tuple(pair[side] for pair in lesson.hints) for side in (0, 1))
    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(data.workers, thread_name_prefix="edgecls-teach")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        teacher = stack.enter_context(
            opened_teacher(options.teacher, data, theirs, group, progress)
        )
        student = Watched(ready.module, mine, "student") if mine else None
        if student is not None:
            stack.callback(student.close)
        room = _Classroom(options, ready, teacher, student, group, pool, progress)
        if not room.keeps and not teacher.sees(data.preprocess, data.size):
            raise UsageError(
                f"{teacher.name} takes {_shown(teacher.preprocess, teacher.size)}, the student "
                f"{_shown(data.preprocess, data.size)}: it cannot be shown the student's augmented "
                "images; give --teacher-sees plain, or --augment none"
            )
        if room.keeps and data.augment.changes_images:
            progress.note(
                "the teacher answers to the images without augmentation, the student sees them "
                "with it"
            )
        yield room


def _shown(preprocess: Preprocess, size: tuple[int, int]) -> str:
    resize, crop = preprocess.resize, preprocess.crop
    return f"{size[1]}x{size[0]} px {preprocess.color} (resize {resize}, crop {crop})"


@dataclass(frozen=True, slots=True)
class _Judges:
    """The images that judge, and who is asked about them."""

    ready: Prepared
    group: Group
    pool: Executor

    def rights(
        self, answer: Callable[[Pixels], Logits], preprocess: Preprocess, size: tuple[int, int]
    ) -> Rights:
        """Return which images a model gets right."""
        opened = self.ready.data.opened
        assert opened.val is not None
        return rights(
            answer, preprocess, size, opened.val, workers=self.pool, cache=opened.cache
        )  # fmt: skip

    def student(self) -> Rights | None:
        """Return it for the student as it is; None for processes that do not judge."""
        ready = self.ready
        if ready.data.val is None or not self.group.leads:
            return None
        module = ready.module.cpu().eval()
        loaded = LoadedModel(source=ready.options.model, module=module)
        preprocess = ready.data.preprocess
        return self.rights(
            lambda pixels: run_torch(loaded, preprocess.normalize(pixels)), preprocess,
            ready.data.size,
        )  # fmt: skip

    def best(self) -> Rights | None:
        """Return it for the weights that were kept."""
        if not self.group.leads:
            return None
        best = safetensors.torch.load((self.ready.options.out / WEIGHTS).read_bytes())
        self.ready.module.load_state_dict(best, strict=True)
        return self.student()


def _table(
    judges: _Judges, teacher: Teacher, begun: Rights | None, control: Rights | None
) -> tuple[Judged, ...]:
    distilled = judges.best()
    assert distilled is not None
    parameters = judges.ready.record.parameters
    asked = judges.rights(teacher, teacher.preprocess, teacher.size)
    rows = [
        Judged(
            who=who, parameters=count, accuracy=accuracy(right),
            behind=difference(distilled, right),
        )
        for who, count, right in (
            ("teacher", teacher.parameters, asked),
            ("student before", parameters, begun),
            ("control", parameters, control),
        )
        if right is not None
    ]  # fmt: skip
    last = Judged(who="distilled", parameters=parameters, accuracy=accuracy(distilled))
    return (*rows, last)
