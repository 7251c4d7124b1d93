"""``edgecls drift``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from .config import config_option
from .drift_modes import Mode, check_files, check_options
from .options import backend_options, one_thread, open_named, workstation
from .remote import on_option

if TYPE_CHECKING:
    from ..core.progress import Progress
    from ..drift.budgets import Budgets
    from ..workflows.answering import DataOptions
    from ..workflows.sources import ModelOptions, Source

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, path_type=Path)
BUDGETS: Final = (
    "max_drop", "max_top5_drop", "min_agreement", "max_class_drop", "max_ece_rise", "confidence",
    "looks",
)  # fmt: skip


@click.command()
@config_option
@click.argument("bundle", nargs=-1, metavar="BUNDLE|MODEL|LOGITS ...")
@click.option("--reference", metavar="BUNDLE|MODEL|LOGITS", help="What it is compared with.")
@click.option("--baseline", type=_FILE, help="Compare with answers that --save-baseline kept.")
@click.option(
    "--save-baseline",
    type=_OUT,
    help="Keep BUNDLE's answers for later comparisons; where it is judged, if it passes.",
)
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of images.",
)  # fmt: skip
@click.option("--truth", type=_FILE, help="Ground truth: JSON or CSV of file, class_index.")
@click.option("--images", type=click.IntRange(1), help="How many of the images. Default: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option(
    "--max-drop", type=float, metavar="POINTS",
    help="Budget of top-1. Default: 1.0 where there is ground truth.",
)  # fmt: skip
@click.option("--max-top5-drop", type=float, metavar="POINTS", help="Budget of top-5.")
@click.option("--min-agreement", type=float, metavar="PERCENT", help="Smallest top-1 agreement.")
@click.option(
    "--max-class-drop", type=float, metavar="POINTS",
    help="Budget of every class that has enough images.",
)  # fmt: skip
@click.option(
    "--max-ece-rise", type=float, metavar="POINTS", help="Budget of the calibration error."
)
@click.option(
    "--confidence", type=float, default=95.0, show_default=True, metavar="PERCENT",
    help="Of a verdict, either way.",
)  # fmt: skip
@click.option(
    "--looks", type=int, default=1, show_default=True,
    help="How often you may look, with more images each time; they share the risk.",
)  # fmt: skip
@click.option(
    "--explain", is_flag=True,
    help="Say which stage, and which layers, the drop comes from; judge nothing.",
)  # fmt: skip
@click.option("--labels", type=_FILE, help="For --explain: the reference's class names.")
@click.option(
    "--reference-data", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="For --explain: the reference's images, where --data are re-encoded ones.",
)  # fmt: skip
@click.option(
    "--calib-table", type=_FILE, help="For --explain: the table that BUNDLE was calibrated with."
)
@click.option("--plan", is_flag=True, help="Say how many images the budgets need; run nothing.")
@click.option(
    "--discordance", type=float, default=1.5, show_default=True, metavar="PERCENT",
    help="For --plan: images whose answer changes between right and wrong.",
)  # fmt: skip
@click.option(
    "--true-drop", type=float, default=0.0, show_default=True, metavar="POINTS",
    help="For --plan: what the conversion really costs.",
)  # fmt: skip
@click.option(
    "--field", metavar="URL|FILE",
    help="Compare the images that a server saw with the calibration's; run nothing.",
)  # fmt: skip
@click.option(
    "--bundle", "served", type=click.Path(exists=True, path_type=Path),
    help="For --field: the bundle that the server runs.",
)  # fmt: skip
@click.option(
    "--max-shift", type=float, default=20.0, show_default=True, metavar="POINTS",
    help="For --field: budget of every statistic.",
)  # fmt: skip
@click.option(
    "--timeout-s", type=click.FloatRange(0.1, 600), default=10.0, show_default=True,
    help="For --field: for the server's answer.",
)  # fmt: skip
@click.option("--weights", type=_FILE, help="Of the model among the sources.")
@click.option("--num-classes", type=click.IntRange(2), help="Of the model among the sources.")
@click.option("--preprocess", metavar="NAME|FILE", help="Of that model. Default: BUNDLE's.")
@click.option(
    "--time", "timed", type=click.IntRange(1), metavar="N",
    help="Time both sides on N images, one at a time. Default: no times.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1, 256),
    help="Processes that share the images. Default: 1; with --ray as many as the cluster has CPUs.",
)  # fmt: skip
@click.option(
    "--resume", type=_OUT,
    help="Keep what is done in this file, and go on from it after an interruption.",
)  # fmt: skip
@click.option("--ray", metavar="HOST:PORT", help="Share the images with a Ray cluster.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout.")
@click.option(
    "--report", "reports", type=_OUT, multiple=True,
    help="Write the report; .json, .md, .xml (JUnit), .sarif or .html. Repeat for several.",
)  # fmt: skip
@on_option
@backend_options
def command(
    bundle: tuple[str, ...],
    reference: str | None,
    baseline: Path | None,
    save_baseline: Path | None,
    timed: int | None,
    as_json: bool,
    reports: tuple[Path, ...],
    explain: bool,
    plan: bool,
    discordance: float,
    true_drop: float,
    field: str | None,
    served: Path | None,
    max_shift: float,
    timeout_s: float,
    on: tuple[str, ...],
    **options: Any,
) -> int:
    """Say what a conversion cost: BUNDLE against its reference on the same images.

    Several sources without --reference: how often each pair gives the same answer. A file that
    predict --save-logits wrote can stand wherever a bundle can.

    With --field, what a server counted is compared with the fingerprint of the calibration in the
    bundle that it runs; $EDGECLS_API_KEY is the server's key.

    With --on, BUNDLE answers on each DEVICE: one is judged against the reference, several without
    a reference are compared with each other, several with one are judged each; of their exit codes
    the first of 70, 3, 2, 4, 1, 5 counts.

    Exit code 0: the gate passed; 1: it failed; 5: undecided, and how many images would do; 4: it
    passed, but some images cannot be read.
    """
    from . import drift_field, drift_output

    mode: Mode = "field"
    if field is None:
        mode = _mode(bundle, on, reference or baseline, save_baseline, explain=explain, plan=plan)
    check_options(click.get_current_context(), mode)
    check_files(click.get_current_context().params, mode)
    if field is not None:
        return drift_field.judge(
            bundle, served, field, max_shift=max_shift, confidence=options["confidence"],
            looks=options["looks"], timeout_s=timeout_s, as_json=as_json,
        )  # fmt: skip
    with workstation():
        import scipy  # noqa: F401 - what imports it does so late: an export extra or none

        from ..drift.budgets import Budgets
        from ..reports import check_report_path, write_matrix, write_report

    budgets = Budgets(**{name: options.pop(name) for name in BUDGETS})
    budgets.check()
    for path in reports:
        check_report_path(path, judged=len(bundle) < 2 and not explain)
    if plan:
        return _plan(budgets, discordance, true_drop, as_json)
    if explain and len(bundle) != 1:
        raise click.UsageError("--explain takes one BUNDLE: a bundle or a file of logits")
    with workstation():
        from ..workflows.answering import DataOptions
        from ..workflows.drift import DriftOptions, drift
        from ..workflows.drift import save_baseline as save
        from ..workflows.matrix import matrix
        from ..workflows.scale import Scale
    from .show import TerminalProgress

    past = reference if mode in {"judge", "explain"} else None
    model = _model_options([*bundle, *([past] if past else [])], options)
    data = DataOptions(**{name: options[name] for name in ("data", "truth", "images", "seed")})
    scale = Scale(**{name: options[name] for name in ("workers", "ray", "resume")})
    progress = TerminalProgress(quiet=as_json)
    asked = DriftOptions(
        reference=reference, baseline=baseline, model=model, data=data, budgets=budgets,
        save_baseline=save_baseline, timed=timed or 0, threads=one_thread(options), scale=scale,
    )  # fmt: skip
    if on:
        from .remote_drift import answered_on, drift_several, only

        if explain or timed or options["ray"] or options["resume"]:
            raise click.UsageError(
                "--on goes with neither --explain, --time, --ray nor --resume; what devices "
                "answered is kept without it until a run is complete"
            )
        if len(on) > 1 and (save_baseline or reports):
            raise click.UsageError("a baseline or a report is of one device: give one --on")
        answered = answered_on(bundle, on, data, options, as_json=as_json)
        if len(on) > 1:
            return drift_several(answered, asked, progress, as_json=as_json)
        sources = [only(answered)]
    else:
        sources = [_open(name, model, options) for name in bundle]
    if explain:
        return _explain(
            sources[0], reference, baseline, model, data, options, progress, reports, as_json
        )
    if mode == "matrix":
        compared = matrix(sources, data, progress, scale)
        for path in reports:
            write_matrix(compared, path)
        drift_output.print_matrix(compared, as_json=as_json)
        return 4 if compared.skipped else 0
    if mode == "save":
        assert save_baseline is not None
        made, skipped = save(sources[0], data, save_baseline, progress, scale)
        drift_output.print_saved(made, save_baseline, skipped, as_json=as_json)
        return 4 if skipped else 0
    report = drift(sources[0], asked, progress)
    for path in reports:
        write_report(report, path, images=options["data"])
    if as_json:
        click.echo(report.to_json(), nl=False)
    else:
        drift_output.print_report(report)
    return report.exit_code


def _plan(budgets: Budgets, discordance: float, true_drop: float, as_json: bool) -> int:
    from . import drift_output

    with workstation():
        from ..drift.planning import plan

        rows = plan(budgets, discordance=discordance, true_drop=true_drop)
    drift_output.print_plan(rows, budgets, discordance, true_drop, as_json=as_json)
    return 0


def _explain(
    candidate: Source, reference: str | None, baseline: Path | None, model: ModelOptions,
    data: DataOptions, options: dict[str, Any], progress: Progress, reports: tuple[Path, ...],
    as_json: bool,
) -> int:  # fmt: skip
    from .drift_explain import print_explanation

    with workstation():
        from ..reports import write_explanation
        from ..workflows.triage import ExplainOptions, explain
    found = explain(
        candidate,
        ExplainOptions(
            reference=reference, baseline=baseline, model=model, data=data,
            originals=options["reference_data"], labels=options["labels"],
            calib_table=options["calib_table"],
        ),
        progress,
    )  # fmt: skip
    for path in reports:
        write_explanation(found, path)
    print_explanation(found, as_json=as_json)
    return 4 if found.left_out else 0


def _mode(
    bundle: tuple[str, ...], on: tuple[str, ...], past: str | Path | None,
    save_baseline: Path | None, *, explain: bool, plan: bool,
) -> Mode:  # fmt: skip
    """Return what is asked for."""
    if plan or explain:
        return "plan" if plan else "explain"
    if not bundle:
        raise click.UsageError("give what is to be judged: a bundle, a model or a file of logits")
    if len(bundle) > 1 or (len(on) > 1 and past is None):
        return "matrix"
    if past is None:
        if save_baseline is None:
            raise click.UsageError("give --reference, --baseline or --save-baseline")
        return "save"
    return "judge"


def _model_options(names: list[str], options: dict[str, Any]) -> ModelOptions:
    """Return what the one source that is a model needs."""
    from ..workflows.sources import ModelOptions, is_model

    model = ModelOptions(
        weights=options["weights"],
        num_classes=options["num_classes"],
        preprocess=options["preprocess"],
    )
    models = [name for name in names if is_model(name)]
    if len(models) > 1 and model.weights is not None:
        raise click.UsageError(
            f"--weights is for one model, found {', '.join(models)}; export one of them first"
        )
    from_file = click.get_current_context().get_parameter_source("preprocess")
    if not models and from_file is ParameterSource.DEFAULT_MAP:
        model = ModelOptions(weights=model.weights, num_classes=model.num_classes)
    if not models and model != ModelOptions():
        raise click.UsageError(
            "bundles and files of logits bring their own weights and preprocessing; leave "
            "--weights, --preprocess and --num-classes out"
        )
    return model


def _open(name: str, model: ModelOptions, options: dict[str, Any]) -> Source:
    from ..workflows.sources import ModelOptions, is_model

    return open_named(name, model if is_model(name) else ModelOptions(), options)
