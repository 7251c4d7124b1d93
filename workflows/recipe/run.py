"""From a trained classifier to bundles that are smaller and faster, stage by stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from ...bundle import Bundle
from ...bundle.recipe import Recipe, RecipeStep, Timing
from ...core.errors import BundleError, CheckFailedError
from ...core.files import sha256_bytes
from ...core.progress import Progress
from ...devices.remote import worst
from ...runtimes import load
from ...targets import get_target
from ..drift import DriftOptions, drift
from ..export import export
from ..export_options import ExportOptions
from ..prune_files import check_plot
from ..sources import from_predictor
from .keys import Keys
from .measure import Point, measure, runs_here, time_all
from .options import BUNDLES, DRIFT, EXPORT, Gate, RecipeOptions
from .results import PLOT, TABLE, plot, stamp, write_table
from .stages import KINDS, ModelStage
from .state import Judged, Made, Measured, Timed, read_state

START: Final = "start"
_FILES: Final = "files"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeResult:
    """What a recipe gave.

    Attributes:
        steps: The table.
        verdicts: The gate's, by target.
        bundles: What ships, by target.
    """

    steps: tuple[RecipeStep, ...]
    verdicts: Mapping[str, Judged]
    bundles: Mapping[str, Path]

    @property
    def exit_code(self) -> int:
        """The gate's; of several targets the first of 4, 1, 5 that one has."""
        return worst([found.exit_code for found in self.verdicts.values()])


def recipe(options: RecipeOptions, progress: Progress) -> RecipeResult:
    """Run all stages that are not done, measure what each leaves, ship and judge the last.

    OUT gets a folder for each stage, ``files`` with what each would ship, ``bundles``, ``drift``,
    recipe.json and recipe.png; each bundle's manifest says what it went through.

    Raises:
        CheckFailedError: A stage missed its goal; what it left is kept.
        EdgeclsError: With the cause's exit code; what is done stays done.
        KeyboardInterrupt: It was asked to stop; the same call goes on.
    """
    check_plot()
    options.check()
    options.out.mkdir(parents=True, exist_ok=True)
    return _Run(options, progress)()


class _Run:
    """The moving parts of one recipe."""

    def __init__(self, options: RecipeOptions, progress: Progress) -> None:
        self.options, self.progress = options, progress
        self.out = options.out
        self.state, self.keys = read_state(self.out), Keys()
        self.state.write(self.out)
        self.target = options.timed
        if not runs_here(get_target(self.target)):
            progress.note(f"nothing is timed: no file for {self.target} runs here")

    def __call__(self) -> RecipeResult:
        options = self.options
        start = self._measured(START, self._file(START, None), {}, None, None)
        points = [start]
        for stage in options.stages:
            self._made(stage)
            bundle = self._file(stage.name, stage)
            points.append(self._measured(stage.name, bundle, stage.given, points[-1], start))
        bundles = self._exported() if options.exports else {}
        shipped = {
            target: self._measured(
                f"{EXPORT}.{target}", bundle, options.exported, points[-1], start
            )
            for target, bundle in bundles.items()
        }  # fmt: skip
        # Times compare files of one target.
        compared = [*points, *(shipped[name] for name in shipped if name == self.target)]
        timings = self._timed(compared)
        rows = [
            msgspec.structs.replace(point.row, timing=timings.get(point.bundle))
            for point in (*points, *shipped.values())
        ]
        verdicts = {
            target: self._judged(target, bundle, options.gate)
            for target, bundle in bundles.items()
            if options.gate is not None
        }
        result = RecipeResult(steps=tuple(rows), verdicts=verdicts, bundles=bundles)
        self._finish(result, len(points))
        return result

    def _once(
        self, name: str, key: str, outputs: Sequence[Path], work: Callable[[], None],
        output: Callable[[], str | None],
    ) -> None:  # fmt: skip
        """Do work whose outputs are not there yet, or are of other options or inputs."""
        made = self.state.made.get(name)
        if made is not None and made.key == key and made.output is not None:
            if made.output == output():
                self.progress.note(f"{name}: done already")
                return
            made = None
        if made is None or made.key != key:
            for path in outputs:
                self.keys.forget(path)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            self.state.made[name] = Made(key=key)
            self.state.write(self.out)
        work()
        for path in outputs:
            self.keys.forget(path)
        self.state.made[name] = Made(key=key, output=output())
        self.state.write(self.out)

    def _made(self, stage: ModelStage) -> None:
        """Run a stage."""

        def work() -> None:
            self.progress.step(stage.name)
            KINDS[stage.name].run(stage.options, self.progress)

        self._once(
            stage.name, self.keys(stage.options), stage.outputs, work,
            lambda: self.keys.content(stage.out) if stage.out.exists() else None,
        )  # fmt: skip

    def _file(self, name: str, stage: ModelStage | None) -> Path:
        """Return the bundle of what a stage left: in float32, or quantized as the stage trained."""
        out, options = self.out / _FILES / name, self.options
        asked = replace(
            options.export, targets=(self.target,), out=out, implicit_int8=False, phone=False,
            strict_int8=False, jetpack=None, module=None, keep_graphs=None, recipe="fast",
            max_drop=None, tune=None, tune_truth=None, tune_resume=None,
        )  # fmt: skip
        if stage is None:
            asked = replace(
                asked, source=options.model, weights=options.source.weights,
                num_classes=options.source.num_classes, preprocess=options.source.preprocess,
            )  # fmt: skip
        else:
            asked = replace(
                asked, source=str(stage.out), weights=None, num_classes=None, preprocess=None
            )
        if stage is None or not KINDS[stage.name].quantized:
            asked = replace(asked, precision="fp32", calib_table=None)
        self._export(f"{_FILES}/{name}", asked, (out,), f"{name}: the file of {self.target}")
        return out / self.target

    def _exported(self) -> dict[str, Path]:
        """Return what ships, by target."""
        asked = self.options.shipped
        tuned = () if asked.tune_resume is None else (asked.tune_resume,)
        self._export(BUNDLES, asked, (asked.out, *tuned), EXPORT)
        return {target: asked.out / target for target in dict.fromkeys(asked.targets)}

    def _export(self, name: str, asked: ExportOptions, outputs: Sequence[Path], step: str) -> None:
        def work() -> None:
            self.progress.step(step)
            missed = export(asked, self.progress).missed
            if missed:
                raise CheckFailedError(
                    f"[export] max-drop = {asked.max_drop:g} cannot be kept. {missed[0].why()} is "
                    f"the best that was found, kept under {asked.out}; change [export]"
                )

        paths = [asked.out / target for target in asked.targets]
        self._once(name, self.keys(asked), outputs, work, lambda: _exports_sha256(paths))

    def _measured(
        self, name: str, bundle: Path, given: Mapping[str, Any], before: Point | None,
        start: Point | None,
    ) -> Point:  # fmt: skip
        """Return what a stage's file answers, beside others."""
        answers = self.out / _FILES / f"{name}.answers.json"
        key = self.keys(
            _exports_sha256([bundle]), self.options.data, given, before and before.key,
            start and start.key,
        )  # fmt: skip
        known = self.state.measured.get(name)
        if known is None or known.key != key or not answers.exists():
            self.progress.step(f"{name}: its answers")
            row = measure(
                bundle, answers, stage=name.partition(".")[0], given=given,
                data=self.options.data, before=before, start=start, progress=self.progress,
            )  # fmt: skip
            known = Measured(key=key, row=row)
            self.state.measured[name] = known
            self.state.write(self.out)
        return Point(bundle=bundle, answers=answers, key=key, row=known.row)

    def _timed(self, points: Sequence[Point]) -> dict[Path, Timing | None]:
        """Return the times of all files, by their bundle."""
        key = self.keys([point.key for point in points])
        known = self.state.timed
        if known is None or known.key != key:
            self.progress.step("time all files in turn")
            known = Timed(key=key, timings=time_all(points, self.options.data))
            self.state.timed = known
            self.state.write(self.out)
        return {point.bundle: timing for point, timing in zip(points, known.timings, strict=True)}

    def _judged(self, target: str, bundle: Path, gate: Gate) -> Judged:
        """Return the gate's verdict on a bundle against the model at the start."""
        from ...reports import write_report

        options = self.options
        files = [self.out / DRIFT / f"{target}.{suffix}" for suffix in ("json", "md")]
        begun_as = f"{DRIFT}/{target}.resume"
        resume = self.out / begun_as
        asked = DriftOptions(
            reference=options.model, model=options.source,
            data=replace(options.data, images=gate.images, seed=gate.seed),
            budgets=gate.budgets, timed=gate.timed, scale=replace(gate.scale, resume=resume),
        )  # fmt: skip
        key = self.keys(asked, _exports_sha256([bundle]))
        known = self.state.judged.get(target)
        if known is not None and known.key == key and all(file.exists() for file in files):
            return known
        self.progress.step(f"{DRIFT}: {target} against {options.model}")
        begun = self.state.made.get(begun_as)
        if begun is None or begun.key != key:
            resume.unlink(missing_ok=True)
            self.state.made[begun_as] = Made(key=key)
            self.state.write(self.out)
        resume.parent.mkdir(parents=True, exist_ok=True)
        predictor = load(Bundle(bundle), allow_fallback=True, threads=1)
        try:
            report = drift(from_predictor(predictor), asked, self.progress)
        finally:
            predictor.close()
        for file in files:
            write_report(report, file, images=options.data.data)
        known = Judged(
            key=key, outcome=report.verdict.outcome, exit_code=report.exit_code,
            images_needed=report.verdict.images_needed,
        )  # fmt: skip
        self.state.judged[target] = known
        self.state.write(self.out)
        resume.unlink(missing_ok=True)
        return known

    def _finish(self, result: RecipeResult, stages: int) -> None:
        """Write the table and the plot, and put into each bundle what it went through."""
        write_table(result.steps, result.verdicts, self.out / TABLE)
        plot(result.steps, self.out / PLOT)
        shipped = result.steps[stages:]
        for row, bundle in zip(shipped, result.bundles.values(), strict=True):
            verdict = result.verdicts.get(row.target)
            stamp(
                bundle,
                Recipe(
                    steps=(*result.steps[:stages], row),
                    verdict=None if verdict is None else verdict.outcome,
                ),
            )


def _exports_sha256(bundles: Sequence[Path]) -> str | None:
    """Return the hash of bundles but for where they come from; None where one is not there."""
    manifests = []
    for path in bundles:
        try:
            manifest = Bundle(path).manifest
        except BundleError:
            return None
        manifests.append(msgspec.structs.replace(manifest, recipe=None))
    return sha256_bytes(msgspec.json.encode(manifests))
