"""Options from an ``edgecls.toml``: one table per command, keys as the options are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


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
    del param
    if value is None:
        return
    table = _read(value, ctx.info_name or "")
    by_key = {_key(parameter): parameter for parameter in ctx.command.params if parameter.name}
    defaults: dict[str, Any] = {}
    for key, found in table.items():
        parameter = by_key.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise click.UsageError(
                f"{value}: [{ctx.info_name}] has no {key!r}; there are: {', '.join(sorted(by_key))}"
            )
        defaults[parameter.name] = _beside(value, parameter, found)
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _read(file: Path, command: str) -> dict[str, Any]:
    import msgspec

    try:
        document = msgspec.toml.decode(file.read_bytes())
    except msgspec.DecodeError as error:
        raise click.UsageError(f"{file}: {error}") from error
    table = document.get(command, {})
    if not isinstance(table, dict):
        raise click.UsageError(f"{file}: [{command}] must be a table")
    if "preprocess" in document and "preprocess" not in table and command in {"export", "drift"}:
        table["preprocess"] = file.name  # its own [preprocess] table
    return table


def _key(parameter: click.Parameter) -> str:
    """Return an option's longest name without dashes; an argument's name in lower case."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len).lstrip("-")
    return str(parameter.name).replace("_", "-")


def _beside(file: Path, parameter: click.Parameter, value: Any) -> Any:
    """Take relative paths from the file's folder, so that a run does not depend on its own."""
    if isinstance(value, list):
        return [_beside(file, parameter, item) for item in value]
    is_path = isinstance(parameter.type, click.Path)
    beside = file.parent / str(value)
    if isinstance(value, str) and (is_path or beside.is_file()):
        return str(beside)
    return value
