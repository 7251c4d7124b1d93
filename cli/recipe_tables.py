"""A recipe's tables: each is read as its command reads it, with what the recipe itself gives."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .config import FILES_OR_NAMES, table_defaults
from .distill import distill_options
from .drift import BUDGETS
from .options import workstation
from .prune import prune_options
from .qat import qat_options

if TYPE_CHECKING:
    from ..workflows.export_options import ExportOptions
    from ..workflows.recipe.options import Gate, RecipeOptions
    from ..workflows.recipe.stages import StageOptions

# The stages that leave a model, in their order: how each command's options become one value.
_STAGES: Final[Mapping[str, Callable[[dict[str, Any]], StageOptions]]] = {
    "prune": prune_options,
    "distill": distill_options,
    "qat": qat_options,
}
# What [recipe] gives to every stage that takes it, unless the stage's table says otherwise.
_SHARED: Final = ("data", "val", "threads")
# What of drift a recipe leaves open: the rest says what is compared, and where that is written.
_OPEN: Final = frozenset({*BUDGETS, "images", "seed", "workers", "ray", "timed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A table's options.

    Attributes:
        options: All of the command's, as it would get them.
        given: What the table said, without paths.
    """

    options: dict[str, Any]
    given: dict[str, Any] = field(default_factory=dict)


def read_tables(file: Path, document: dict[str, Any], own: Mapping[str, Any]) -> RecipeOptions:
    """Return the recipe that a file's tables and the options of ``edgecls recipe`` choose.

    Args:
        file: For messages and paths beside it.
        document: Its tables.
        own: The options of ``edgecls recipe``.

    Raises:
        UsageError: A table has a key that its command does not have, or that the recipe gives.
        EdgeclsError: As the commands' own options.
    """
    with workstation():
        from ..workflows.answering import DataOptions
        from ..workflows.prune_setup import PruneOptions  # noqa: F401 - brings torch, or says so
        from ..workflows.recipe.measure import first_that_runs
        from ..workflows.recipe.options import RecipeOptions
        from ..workflows.recipe.stages import ModelStage
        from ..workflows.sources import ModelOptions

    out: Path = own["out"]
    timed = first_that_runs(own["targets"])
    source = {name: own[name] for name in ("weights", "num_classes", "preprocess")}
    teacher = {
        "teacher": own["model"], "teacher_weights": own["weights"],
        "teacher_preprocess": own["preprocess"],
    }  # fmt: skip
    start = {"model": own["model"], "weights": own["weights"], "preprocess": own["preprocess"]}
    stages = []
    for name, chosen in _STAGES.items():
        if name not in document:
            continue
        fixed = {
            **start, "targets": own["targets"], "out": out / name, "resume": True,
            "dry_run": False, "as_json": False,
        }  # fmt: skip
        shared = {**{name: own[name] for name in _SHARED}, "target": timed}
        if "teacher" not in document[name]:
            shared |= teacher
        read = _read(file, document, name, fixed, shared)
        stages.append(ModelStage(name=name, options=chosen(read.options), given=read.given))
        start = {"model": str(out / name), "weights": None, "preprocess": None}
    fixed = {
        **start, "num_classes": None if stages else own["num_classes"], "targets": own["targets"],
        "out": out / "bundles", "tune_resume": None, "as_json": False,
    }  # fmt: skip
    exported = _read(file, {**document, "export": document.get("export", {})}, "export", fixed, {})
    return RecipeOptions(
        model=own["model"], source=ModelOptions(**source), targets=own["targets"],
        data=DataOptions(data=own["judge"], truth=own["truth"]), out=out, stages=tuple(stages),
        export=_export_options(exported), exports="export" in document, exported=exported.given,
        gate=_gate(file, document) if "drift" in document else None,
    )  # fmt: skip


def _export_options(read: _Read) -> ExportOptions:
    from ..workflows.export_options import ExportOptions

    options = {name: value for name, value in read.options.items() if name != "as_json"}
    return ExportOptions(source=options.pop("model"), **options)


def _gate(file: Path, document: dict[str, Any]) -> Gate:
    from ..drift.budgets import Budgets
    from ..workflows.recipe.options import Gate
    from ..workflows.scale import Scale
    from .drift import command

    fixed = {
        parameter.name: None
        for parameter in command.params
        if parameter.name is not None and parameter.name not in _OPEN
    }
    options = _read(file, document, "drift", fixed, {}).options
    return Gate(
        budgets=Budgets(**{name: options[name] for name in BUDGETS}),
        images=options["images"], seed=options["seed"], timed=options["timed"] or 0,
        scale=Scale(workers=options["workers"], ray=options["ray"]),
    )  # fmt: skip


def _read(
    file: Path, document: dict[str, Any], name: str, fixed: Mapping[str, Any],
    shared: Mapping[str, Any],
) -> _Read:  # fmt: skip
    """Return a command's options as it would read them itself.

    Args:
        file: The tables' file.
        document: The tables.
        name: The command's.
        fixed: What the recipe gives, by parameter: not the table's to say.
        shared: What it gives where the table does not.
    """
    command: click.Command = importlib.import_module(f".{name}", __package__).command
    # The table [preprocess] is [recipe]'s, which says what the stages get of it.
    alone = {key: value for key, value in document.items() if key != "preprocess"}
    table = table_defaults(file, alone, name, command)
    for parameter in command.params:
        if parameter.name in table and parameter.name in fixed:
            key = max(parameter.opts, key=len).lstrip("-")
            raise click.UsageError(
                f"{file}: [{name}] {key}: in a recipe that is given by [recipe] and by the stage "
                "before; remove it"
            )
    known = {parameter.name for parameter in command.params}
    given = {key: value for key, value in shared.items() if key in known and value is not None}
    fixed = {key: value for key, value in fixed.items() if key in known and value is not None}
    try:
        with command.make_context(name, [], default_map={**given, **table, **fixed}) as ctx:
            options = dict(ctx.params)
    except click.UsageError as error:
        raise click.UsageError(f"{file}: [{name}]: {error.format_message()}") from error
    paths = {
        parameter.name
        for parameter in command.params
        if isinstance(parameter.type, click.Path) or parameter.name in FILES_OR_NAMES
    }
    shown = {key: value for key, value in table.items() if key not in paths}
    return _Read(options=options, given=shown)
