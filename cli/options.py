"""Options that several commands share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args

import click

from ..core.errors import MissingPackageError
from ..core.stderr import without_info
from ..targets.target import BackendName

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..runtimes import Predictor
    from ..workflows.sources import ModelOptions, Source


class _Finite(click.FloatRange):
    """A number in a range; NaN lies in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


PERCENTILE: Final = _Finite(50, 100)
PERCENT: Final = _Finite(0, 100)

F = TypeVar("F", bound=Callable[..., Any])


def backend_options(function: F) -> F:
    """Add ``--backend``, ``--allow-fallback`` and ``--threads``."""
    for option in (
        click.option("--threads", type=click.IntRange(1, 256), help="CPU threads of the backend."),
        click.option(
            "--allow-fallback",
            is_flag=True,
            help="Simulate on this machine where the target's own backends cannot run.",
        ),
        click.option(
            "--backend",
            type=click.Choice(get_args(BackendName)),
            help="Run this one, or fail. Default: the target's first that can run here.",
        ),
    ):
        function = option(function)
    return function


@contextlib.contextmanager
def workstation() -> Iterator[None]:
    """Turn a missing package of the workstation's half into what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in {"", "edgecls"}:
            raise
        raise MissingPackageError(package, "export") from error


def one_thread(options: Mapping[str, Any]) -> int:
    """Return the CPU threads of every model: one, as no verdict may depend on the machine's."""
    return options["threads"] or 1


def open_named(name: str, model: ModelOptions, options: Mapping[str, Any]) -> Source:
    """Open what is judged: a bundle, a model or a file of logits.

    Args:
        name: As the user gave it.
        model: What a model needs.
        options: Those of ``backend_options``.
    """
    threads = one_thread(options)
    with workstation():
        from ..workflows.sources import open_source

        return open_source(
            name,
            model,
            threads=threads,
            load_bundle=lambda bundle: open_predictor(
                bundle, options["backend"], options["allow_fallback"], threads
            ),
        )


def open_predictor(
    bundle: str | Bundle, backend: str | None, allow_fallback: bool, threads: int | None
) -> Predictor:
    """Load a bundle, and say so on stderr where another backend than the target's runs."""
    from ..runtimes import load

    with without_info():
        predictor = load(
            bundle,
            backend=cast("BackendName | None", backend),
            allow_fallback=allow_fallback,
            threads=threads,
        )
    if predictor.problem is not None:
        click.echo(f"note: {predictor.problem}", err=True)
    if predictor.fell_back:
        click.echo(f"note: simulated with {predictor.backend}: {predictor.fell_back}", err=True)
    return predictor
