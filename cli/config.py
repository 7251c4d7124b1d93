"""Options from an ``edgecls.toml``: one table per command, keys as the options are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

# What may be a file or a name: a model, a preset, an image.
FILES_OR_NAMES: Final = {"model", "bundle", "reference", "preprocess", "images", "teacher"}

TABLES: Final = (
    "data", "train", "tune", "prune", "distill", "qat", "recipe", "evaluate", "export",
    "calibrate", "sensitivity", "sweep", "predict", "serve", "drift", "verify", "bench", "build",
    "doctor", "demo", "preprocess", "devices",
)  # fmt: skip

# Where a context keeps the file, and the table of devices with its file's folder.
FILE: Final = "edgecls.config"
DEVICES: Final = "edgecls.devices"


def config_option(function: F) -> F:
    """Add ``-c FILE``: its table named like the command gives the options' values."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_load,
        help="A TOML file with these options in a table named like the command.",
    )(function)


def _load(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    if value is None:
        return
    del param
    document = read_config(value)
    ctx.meta[FILE] = value
    ctx.meta[DEVICES] = (document.get("devices"), value.parent)
    defaults = table_defaults(value, document, ctx.info_name or "", ctx.command)
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def table_defaults(
    file: Path, document: dict[str, Any], name: str, command: click.Command
) -> dict[str, Any]:
    """Return what the table of a command says, by parameter, in the form that click takes.

    Raises:
        UsageError: It has a key that the command does not have, or a value of another kind.
    """
    # An argument comes before an option that is called like it.
    others = sorted(command.params, key=lambda other: isinstance(other, click.Argument))
    by_key = {_key(other): other for other in others if other.name != "config"}
    table = _table(file, document, name, takes_preprocess="preprocess" in by_key)
    defaults: dict[str, Any] = {}
    for key, found in table.items():
        parameter = by_key.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise click.UsageError(
                f"{file}: [{name}] has no {key!r}; there are: {', '.join(sorted(by_key))}"
            )
        defaults[parameter.name] = _checked(file, key, parameter, found)
    return defaults


def read_config(file: Path) -> dict[str, Any]:
    """Return a file's tables.

    Raises:
        UsageError: It is no TOML, or has a table that no command reads.
    """
    import msgspec

    try:
        document: dict[str, Any] = msgspec.toml.decode(file.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file}: {error}") from error
    unknown = sorted(set(document) - set(TABLES))
    if unknown:
        raise click.UsageError(
            f"{file}: no command reads [{unknown[0]}]; there are: {', '.join(TABLES)}"
        )
    return document


def _table(
    file: Path, document: dict[str, Any], command: str, *, takes_preprocess: bool
) -> dict[str, Any]:
    table = document.get(command, {})
    if not isinstance(table, dict):
        raise click.UsageError(f"{file}: [{command}] must be a table")
    if takes_preprocess and "preprocess" in document and "preprocess" not in table:
        table["preprocess"] = file.name
    return table


def _key(parameter: click.Parameter) -> str:
    """Return an option's longest name without dashes; an argument's name in lower case."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len).lstrip("-")
    return str(parameter.name).replace("_", "-")


def _checked(file: Path, key: str, parameter: click.Parameter, value: Any) -> Any:
    """Return a value in the form that click takes; click itself converts and checks it."""
    several = parameter.multiple if isinstance(parameter, click.Option) else parameter.nargs != 1
    if several:
        values = value if isinstance(value, list) else [value]
        return [_beside(file, parameter, item) for item in values]
    if isinstance(value, (list, dict)):
        raise click.UsageError(f"{file}: {key} takes one value, found {value!r}")
    whole = isinstance(parameter.type, (click.types.IntParamType, click.IntRange))
    number = whole or isinstance(parameter.type, click.types.FloatParamType)
    if (whole and not isinstance(value, int)) or (number and isinstance(value, bool)):
        raise click.UsageError(
            f"{file}: {key} takes a {'whole ' if whole else ''}number, found {value!r}"
        )
    return _beside(file, parameter, value)


def _beside(file: Path, parameter: click.Parameter, value: Any) -> Any:
    """Take relative paths from the file's folder, so that a run does not depend on its own."""
    if not isinstance(value, str):
        return value
    beside = file.parent / value
    named = parameter.name in FILES_OR_NAMES and not _is_name(value) and beside.exists()
    return str(beside) if named or isinstance(parameter.type, click.Path) else value


def _is_name(value: str) -> bool:
    """Return whether a value means something that is no file, whatever stands beside."""
    from ..core.preprocess import PRESETS

    return value in PRESETS or value == "lenet5" or value.startswith("cifar_resnet") or ":" in value
