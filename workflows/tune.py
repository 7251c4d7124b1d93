"""A search for a training's hyperparameters, in a file from which it goes on."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgspec
import numpy as np

from ..core.errors import CheckpointError, MissingPackageError, TrainingError, UsageError
from ..core.files import sha256_bytes, write_atomic
from ..core.progress import Progress
from ..data.augment import PRESETS, resolve_augment
from ..training import Epoch
from ..training.distributed import process_group
from ..training.history import best_epoch
from .sources import torch_threads
from .train import TrainOptions, check_writable, fit, prepare
from .training_data import OpenedData, describe_data, open_data
from .tune_files import CONFIG, TRIALS, plot, trials_csv, write_config

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

Searched = Literal["lr", "batch", "weight-decay", "label-smoothing", "augment"]
SEARCHED: Final[tuple[Searched, ...]] = get_args(Searched)
Pruner = Literal["median", "hyperband", "none"]
PRUNERS: Final[tuple[Pruner, ...]] = get_args(Pruner)

_STUDY: Final = "edgecls"
_IDENTITY: Final = "identity"
_BATCHES: Final = (16, 32, 64, 128, 256)
# A factor to either side of the usual peak.
_RATE_FACTOR: Final = 10.0
# A quarter of them, the good ones, must be three or more to have a distribution.
_LEAST_FOR_IMPORTANCE: Final = 12
_GOOD: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """What to search, as the command line has it.

    Attributes:
        train: Every trial's training, but for what is searched; ``out`` gets the findings.
        trials: How many, with those that the study has already.
        study: The file; one that exists goes on.
        search: What is varied.
        pruner: Ends trials that are worse than others were after as many epochs.
    """

    train: TrainOptions
    trials: int
    study: Path
    search: tuple[Searched, ...] = SEARCHED
    pruner: Pruner = "median"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """What a trial gave.

    Attributes:
        number: From 0.
        outcome: Whether it was trained to its end.
        top1: The best epoch's, in percent; None where it diverged before its first one ended.
        epochs: How many it was given.
        params: What was tried, as ``edgecls train`` calls it.
    """

    number: int
    outcome: Literal["done", "pruned", "diverged"]
    top1: float | None
    epochs: int
    params: dict[str, float | int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What the search gave.

    Attributes:
        rows: All trials.
        best: The best of those that were trained to their end.
        importance: Shares of what made trials good, largest first; None after too few.
        config: The file that ``edgecls train -c`` takes.
    """

    rows: tuple[TrialRow, ...]
    best: TrialRow
    importance: dict[str, float] | None
    config: Path


def tune(
    options: TuneOptions, progress: Progress, on_trial: Callable[[TrialRow], None] | None = None
) -> TuneResult:
    """Run trials until there are enough, and write OUT/edgecls.toml, trials.csv and importance.png.

    A study that was interrupted, by Ctrl-C or a kill, goes on with the trial that was running; what
    is tried next depends on the trials before and the seed only.

    Raises:
        EdgeclsError: Options or data that cannot be used.
        CheckpointError: The study is damaged or of another search.
        TrainingError: No trial was trained to its end.
        KeyboardInterrupt: It was asked to stop.
    """
    optuna = _optuna()
    train = options.train
    if options.trials < 1 or not options.search:
        raise UsageError("tune needs one trial or more, and something to search")
    if "augment" in options.search and train.data.augment != resolve_augment(
        train.data.augment_name
    ):
        raise UsageError(
            "the augmentation is searched, which decides on mixup and cutmix too; leave --mixup "
            "and --cutmix out, or name with --search what else is searched"
        )
    config = train.out / CONFIG
    if config.exists() and not (train.out / TRIALS).exists():
        raise UsageError(f"{config} is no search's result and would be lost; give another -o")
    check_writable(train.out)
    opened = open_data(train.data, train.settings.seed, progress)
    if opened.val is None:
        raise UsageError("trials are compared on images to judge by; give --val or --val-share")
    study = _open_study(optuna, options, opened)
    _begin_again(optuna, study)
    while len(finished := _finished(study)) < options.trials:
        # A sampler of its own for each: one that goes on must not draw the first trials again.
        seed = int(
            np.random.SeedSequence([train.settings.seed, len(finished)]).generate_state(1)[0]
        )
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        row = _run(optuna, study, options, opened, progress)
        if on_trial is not None:
            on_trial(row)
    rows = tuple(_row(trial) for trial in _finished(study))
    done = [row for row in rows if row.outcome == "done"]
    if not done:
        raise TrainingError(
            f"none of {len(rows)} trials was trained to its end: all diverged; search around "
            "another learning rate: --lr"
        )
    best = max(done, key=lambda row: (row.top1 or 0.0, -row.number))
    importance = _importance(optuna, study, len(done), options.search)
    out = train.out
    write_atomic(out / TRIALS, trials_csv(rows))
    write_config(config, chosen(train, best.params), best.params)
    plot(rows, importance, out / "importance.png")
    return TuneResult(rows=rows, best=best, importance=importance, config=config)


def chosen(train: TrainOptions, params: dict[str, Any]) -> TrainOptions:
    """Return a training with a trial's hyperparameters."""
    names = {name.replace("-", "_"): value for name, value in params.items() if name != "augment"}
    if "lr" in names:
        names["learning_rate"] = names.pop("lr")
    settings = msgspec.structs.replace(train.settings, **names)
    data = train.data
    if "augment" in params:
        data = replace(data, augment=resolve_augment(str(params["augment"])))
    return replace(train, settings=settings, data=data)


def _run(
    optuna: ModuleType, study: Study, options: TuneOptions, opened: OpenedData, progress: Progress
) -> TrialRow:
    trial = study.ask()
    train = chosen(options.train, _suggest(trial, options, len(opened.train)))

    def judged(history: tuple[Epoch, ...]) -> None:
        best = best_epoch(history)
        assert best is not None
        assert best.val_top1 is not None
        trial.report(best.val_top1, len(history))
        if trial.should_prune() and len(history) < train.settings.epochs:
            raise optuna.TrialPruned

    pruned = optuna.trial.TrialState.PRUNED
    with (
        process_group(train.device) as group,
        torch_threads(train.threads),
        contextlib.ExitStack() as stack,
    ):
        if group.world > 1:
            raise UsageError("tune runs in one process; leave torchrun out")
        ready = prepare(train, group, progress, opened)
        try:
            history = fit(ready, group, progress, stack, judged, keep=False)(ready.module)
        except TrainingError:
            trial.set_user_attr("diverged", True)
            study.tell(trial, state=pruned)
        except optuna.TrialPruned:
            study.tell(trial, state=pruned)
        else:
            best = best_epoch(history)
            assert best is not None
            study.tell(trial, best.val_top1)
    return _row(study.trials[trial.number])


def _suggest(trial: Trial, options: TuneOptions, images: int) -> dict[str, Any]:
    """Draw what is searched; the rest stays as it is."""
    search, settings = options.search, options.train.settings
    found: dict[str, Any] = {}
    if "lr" in search:
        low, high = settings.peak / _RATE_FACTOR, settings.peak * _RATE_FACTOR
        found["lr"] = trial.suggest_float("lr", low, high, log=True)
    if "batch" in search:
        sizes = [size for size in _BATCHES if 8 * size <= images] or [settings.batch]
        found["batch"] = trial.suggest_categorical("batch", sizes)
    if "weight-decay" in search:
        found["weight-decay"] = trial.suggest_float("weight-decay", 1e-5, 1e-2, log=True)
    if "label-smoothing" in search:
        found["label-smoothing"] = trial.suggest_float("label-smoothing", 0.0, 0.2)
    if "augment" in search:
        found["augment"] = trial.suggest_categorical("augment", list(PRESETS))
    return found


def _open_study(optuna: ModuleType, options: TuneOptions, opened: OpenedData) -> Study:
    epochs = options.train.settings.epochs
    pruner = {
        "median": lambda: optuna.pruners.MedianPruner(n_warmup_steps=max(1, epochs // 4)),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=max(1, epochs // 9), max_resource=epochs
        ),
        "none": optuna.pruners.NopPruner,
    }[options.pruner]()
    options.study.parent.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(options.study))
    try:
        study: Study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=_STUDY,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise CheckpointError(f"{options.study}: not a study of edgecls tune: {error}") from error
    identity = _identity(options, opened)
    known = study.user_attrs.get(_IDENTITY)
    if known is None:
        study.set_user_attr(_IDENTITY, identity)
    elif known != identity:
        raise CheckpointError(
            f"{options.study} is of another search: the model, the data, the epochs or what is "
            "searched differ; give what it began with, or another --study"
        )
    return study


def _identity(options: TuneOptions, opened: OpenedData) -> str:
    train = options.train
    assert opened.val is not None
    parts = [
        train.model, train.weights and str(train.weights), train.preprocess, train.freeze,
        train.settings, train.data.augment, sorted(options.search), options.pruner,
        describe_data(opened.train).sha256, describe_data(opened.val).sha256,
    ]  # fmt: skip
    return sha256_bytes(msgspec.json.encode(parts))


def _begin_again(optuna: ModuleType, study: Study) -> None:
    """Queue what was running when the last process ended."""
    states = optuna.trial.TrialState
    for trial in study.get_trials(states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)
        study.enqueue_trial(trial.params)


def _finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that gave something, by number."""
    return [trial for trial in study.trials if trial.state.name in {"COMPLETE", "PRUNED"}]


def _row(trial: FrozenTrial) -> TrialRow:
    seen = trial.intermediate_values
    diverged = bool(trial.user_attrs.get("diverged"))
    ended = trial.state.name == "COMPLETE"
    return TrialRow(
        number=trial.number,
        outcome="diverged" if diverged else "done" if ended else "pruned",
        top1=trial.value if ended else max(seen.values(), default=None),
        epochs=len(seen),
        params=dict(trial.params),
    )


def _importance(
    optuna: ModuleType, study: Study, done: int, search: tuple[Searched, ...]
) -> dict[str, float] | None:
    """Return how much each hyperparameter's good region differs from all that was tried.

    Source: Watanabe, Bansal and Hutter 2023, PED-ANOVA, arXiv:2304.10255.
    """
    if done < _LEAST_FOR_IMPORTANCE or len(search) < 2:
        return None
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_GOOD)
    found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _optuna() -> ModuleType:
    # Asked for now: what was found must not be lost at the end for want of a plot.
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("matplotlib", "plots")
    try:
        import optuna
        import optuna.storages.journal
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "optuna", "tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
