"""Which options of ``edgecls drift`` each of its modes reads, and which files it may write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import click
from click.core import ParameterSource

Mode = Literal["plan", "explain", "matrix", "judge", "save", "field"]

_BUDGETS: Final = {"max_drop", "max_top5_drop", "min_agreement", "max_class_drop"}
_RISK: Final = {"confidence", "looks"}
_ANSWERS: Final = {
    "bundle", "data", "truth", "images", "seed", "weights", "num_classes", "preprocess",
    "backend", "allow_fallback", "threads",
}  # fmt: skip
_SCALE: Final = {"workers", "resume", "ray", "on"}
_PAST: Final = {"reference", "baseline"}
_FOR_EXPLAIN: Final = {"explain", "labels", "reference_data", "calib_table"}

READS: Final[dict[Mode, frozenset[str]]] = {
    "plan": frozenset({"plan", "discordance", "true_drop", *_BUDGETS, *_RISK}),
    "explain": frozenset({"reports", *_ANSWERS, *_PAST, *_FOR_EXPLAIN}),
    "matrix": frozenset({"reports", *_ANSWERS, *_SCALE}),
    "judge": frozenset(
        {
            "reports", "timed", "save_baseline", "max_ece_rise", *_ANSWERS, *_SCALE, *_PAST,
            *_BUDGETS, *_RISK,
        }
    ),
    "save": frozenset({"save_baseline", *_ANSWERS, *_SCALE}),
    "field": frozenset({"bundle", "field", "served", "max_shift", "timeout_s", *_RISK}),
}  # fmt: skip
"""By mode; ``--json`` and ``-c`` are read in all."""

_READ: Final = (
    "bundle", "reference", "baseline", "truth", "labels", "calib_table", "weights", "preprocess",
)  # fmt: skip
_WRITTEN: Final = {"reports": "--report", "save_baseline": "--save-baseline", "resume": "--resume"}

_CALLED: Final[dict[Mode, str]] = {
    "plan": "--plan",
    "explain": "--explain",
    "matrix": "several sources, which are compared with each other",
    "judge": "one BUNDLE against --reference or --baseline",
    "save": "--save-baseline alone",
    "field": "--field",
}


def check_options(ctx: click.Context, mode: Mode) -> None:
    """Refuse what was given on the command line and is not read; a file's options are for all."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        readers = [_CALLED[other] for other, names in READS.items() if name in names]
        if readers and name not in READS[mode]:
            called = name.upper() if isinstance(parameter, click.Argument) else parameter.opts[0]
            raise click.UsageError(
                f"{called} is for {'; '.join(readers)}, not for {_CALLED[mode]}; leave it out"
            )


def check_files(params: Mapping[str, Any], mode: Mode) -> None:
    """Refuse a file that would be written over what is read, or twice."""
    taken: dict[Path, str] = {}
    for names, how in ((_READ, "read"), (_WRITTEN, "written too")):
        for name in sorted(READS[mode].intersection(names)):
            value = params[name]
            for path in value if isinstance(value, tuple) else (value,):
                if path is None:
                    continue
                place, option = Path(path).resolve(), _WRITTEN.get(name)
                if option is not None and place in taken:
                    raise click.UsageError(
                        f"{option} {path}: the file is {taken[place]} in this run; name another"
                    )
                taken[place] = how
