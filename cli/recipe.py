"""``edgecls recipe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..targets import TARGETS
from .config import FILE, config_option, read_config
from .options import workstation
from .recipe_tables import read_tables
from .text import print_json

if TYPE_CHECKING:
    from ..bundle.recipe import Estimate, RecipeStep
    from ..workflows.recipe.options import RecipeOptions
    from ..workflows.recipe.plan import Planned
    from ..workflows.recipe.run import RecipeResult

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_DATA: Final = click.Path(exists=True, path_type=Path)


@click.command()
@config_option
@click.argument("model")
@click.option("--weights", type=_FILE, help="The model's, where it is no folder of edgecls train.")
@click.option("--num-classes", type=click.IntRange(2), help="Outputs of the model's head.")
@click.option("--preprocess", metavar="NAME|FILE", help="A preset or a TOML file.")
@click.option("--data", type=_DATA, help="Images that the stages learn from.")
@click.option("--val", type=_DATA, help="Images that choose their epochs.")
@click.option(
    "--judge", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
    help="A folder of images that judge every stage and the end; nothing may learn from them.",
)  # fmt: skip
@click.option("--truth", type=_FILE, help="Their ground truth: JSON or CSV of file, class_index.")
@click.option(
    "--target", "targets", multiple=True, required=True, type=click.Choice(tuple(TARGETS)),
    help="Repeat for several. Stages are timed on the first whose files run here.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 256), help="CPU threads of the stages.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, with what; do nothing.")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(dry_run: bool, as_json: bool, **options: Any) -> int:
    """Make MODEL smaller and faster as the tables of -c FILE say: OUT/bundles/TARGET.

    The file has a table for each stage, [prune], [distill], [qat], [export] and [drift], with the
    options of the command of that name; a stage without a table is not run. What is given here,
    or in [recipe], holds for all. The same call goes on after an interruption, and does again
    only what changed.

    Exit code 0: the gate passed for every target; 1: it failed, or a stage missed its goal; 5:
    undecided; 4: it passed, but some images cannot be read.
    """
    with workstation():
        from ..workflows.recipe.plan import plan
        from ..workflows.recipe.run import recipe
    from .show import TerminalProgress

    file: Path | None = click.get_current_context().meta.get(FILE)
    if file is None:
        raise click.UsageError("the stages are tables of a file: give -c edgecls.toml")
    chosen = read_tables(file, read_config(file), options)
    if dry_run:
        _show_plan(plan(chosen), as_json)
        return 0
    progress = TerminalProgress(quiet=as_json)
    result = recipe(chosen, progress)
    _show_result(result, chosen, as_json)
    return result.exit_code


def _show_plan(found: tuple[Planned, ...], as_json: bool) -> None:

    if as_json:
        print_json(found)
        return
    for stage in found:
        click.echo(f"{stage.stage}: {stage.status}")
        click.echo(f"  {stage.begins_with} -> {stage.makes}")
        given = ", ".join(f"{name} = {value}" for name, value in stage.given.items())
        click.echo(f"  {given or 'all by default'}")


_HEAD: Final = (
    f"{'stage':<8} {'target':<13} {'file':<13} {'size':>9}  {'top-1, % (95 %)':<21} "
    f"{'points by the stage (95 %)':<27} {'points from the start':<24} {'ms':>8}  "
    "faster than the start"
)


def _line(row: RecipeStep) -> str:
    from .show import human_bytes

    top1 = f"{row.top1.value:.2f} ({row.top1.low:.1f}..{row.top1.high:.1f})"
    timing = row.timing
    ms = "-" if timing is None else f"{timing.ms:.3f}"
    speedup = "" if timing is None else _factor(timing.against_start)
    return (
        f"{row.stage:<8} {row.target:<13} {row.precision:<13} {human_bytes(row.size_bytes):>9}"
        f"  {top1:<21} {_points(row.points):<27} {_points(row.points_from_start):<24} {ms:>8}  "
        f"{speedup}"
    ).rstrip()


def _points(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:+.2f} ({found.low:+.2f}..{found.high:+.2f})"


def _factor(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.2f}x ({found.low:.2f}..{found.high:.2f})"


def _show_result(result: RecipeResult, options: RecipeOptions, as_json: bool) -> None:

    if as_json:
        document = {
            "out": str(options.out),
            "steps": result.steps,
            "bundles": {target: str(path) for target, path in result.bundles.items()},
            "verdicts": {
                target: {"outcome": found.outcome, "images_needed": found.images_needed}
                for target, found in result.verdicts.items()
            },
            "exit_code": result.exit_code,
        }
        print_json(document)
        return
    click.echo(_HEAD)
    for row in result.steps:
        click.echo(_line(row))
    click.echo(
        f"\n{options.out}: judged by {result.steps[0].images} images; timed here, one image on one "
        "thread, not on the device"
    )
    for target, found in result.verdicts.items():
        needed = found.images_needed
        more = "" if needed is None else f"; {needed:,} images would decide"
        report = options.out / "drift" / f"{target}.md"
        click.echo(f"{target}: {found.outcome}{more} ({report})")
