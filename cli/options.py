"""Options that several commands share."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args

import click

from ..core.errors import MissingPackageError
from ..core.stderr import without_info
from ..runtimes.engine_options import DEFAULT, MAX_BATCH, MAX_WORKSPACE_MB, EngineOptions
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


def backend_option(function: F) -> F:
    """Add ``--backend``."""
    return click.option(
        "--backend",
        type=click.Choice(get_args(BackendName)),
        help="Run this one, or fail. Default: the target's first that can run here.",
    )(function)


def backend_options(function: F) -> F:
    """Add ``--backend``, ``--allow-fallback`` and ``--threads``."""
    for option in (
        click.option("--threads", type=click.IntRange(1, 256), help="CPU threads of the backend."),
        click.option(
            "--allow-fallback",
            is_flag=True,
            help="Simulate on this machine where the target's own backends cannot run.",
        ),
        backend_option,
    ):
        function = option(function)
    return function


def engine_options(function: F) -> F:
    """Add the options of TensorRT's engines; the command takes them together as ``engine``."""

    @functools.wraps(function)
    def together(*args: Any, **options: Any) -> Any:
        named = {name: options.pop(name) for name in EngineOptions.__struct_fields__}
        return function(*args, engine=EngineOptions(**named), **options)

    added: Callable[..., Any] = together
    for option in (
        click.option(
            "--cuda-graph/--no-cuda-graph", default=DEFAULT.cuda_graph,
            help="TensorRT: record a batch's work once and replay it. Default: yes.",
        ),
        click.option(
            "--implicit-int8", is_flag=True,
            help="TensorRT 10: let it quantize the float graph by the bundle's calibration cache.",
        ),
        click.option(
            "--workspace-mb", type=click.IntRange(1, MAX_WORKSPACE_MB), metavar="MB",
            help="TensorRT: the most memory that a layer may need for itself. Default: all.",
        ),
        click.option(
            "--opt-batch", type=click.IntRange(1, MAX_BATCH), default=DEFAULT.opt_batch,
            show_default=True, help="TensorRT: the batch that the engine is fastest at.",
        ),
        click.option(
            "--max-batch", type=click.IntRange(1, MAX_BATCH), default=DEFAULT.max_batch,
            show_default=True, help="TensorRT: the most images that the engine takes at once.",
        ),
    ):  # fmt: skip
        added = option(added)
    return cast(F, added)


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
    bundle: str | Bundle,
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
    engine: EngineOptions = DEFAULT,
) -> Predictor:
    """Load a bundle, and say so on stderr where another backend than the target's runs."""
    from ..runtimes import load
    from .show import TerminalProgress

    with without_info() as stderr:
        predictor = load(
            bundle,
            backend=cast("BackendName | None", backend),
            allow_fallback=allow_fallback,
            threads=threads,
            engine=engine,
            progress=TerminalProgress(file=stderr),
        )
    if predictor.problem is not None:
        click.echo(f"note: {predictor.problem}", err=True)
    if predictor.fell_back:
        click.echo(f"note: simulated with {predictor.backend}: {predictor.fell_back}", err=True)
    return predictor
