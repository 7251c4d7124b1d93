"""``edgecls certify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .config import config_option
from .options import backend_options, workstation
from .remote import on_option, predict_options, read_images, run_on
from .text import printable

if TYPE_CHECKING:
    from ..devices.remote import Outcome, Session
    from ..drift.certificate import Certificate
    from ..workflows.certify import Told

_OUT = click.Path(dir_okay=False, path_type=Path)


@click.command()
@config_option
@click.argument("bundle", type=click.Path())
@on_option
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of images to ask every device about, beside the golden samples.",
)  # fmt: skip
@click.option("--images", type=click.IntRange(1), help="How many of the images. Default: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option(
    "--against", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True,
    help="A certificate that somebody made: compare with its devices too. Repeat for several.",
)  # fmt: skip
@click.option(
    "--min-agreement", type=float, default=97.0, show_default=True, metavar="PERCENT",
    help="The least share of equal top-1 answers of every two devices.",
)  # fmt: skip
@click.option(
    "--confidence", type=float, default=95.0, show_default=True, metavar="PERCENT",
    help="Of the verdict, either way.",
)  # fmt: skip
@click.option(
    "-o", "--output", "outputs", type=_OUT, multiple=True, required=True,
    help="The certificate: .json, which --against reads, or .html. Repeat for both.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The certificate on stdout as JSON.")
@backend_options
def command(
    bundle: str,
    on: tuple[str, ...],
    data: Path | None,
    images: int | None,
    seed: int,
    against: tuple[Path, ...],
    min_agreement: float,
    confidence: float,
    outputs: tuple[Path, ...],
    as_json: bool,
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
) -> int:
    """Certify that devices answer alike: BUNDLE's golden samples and the same images on each.

    "--on here" is this machine. The certificate holds what every device is, what it answered and
    how often each two agree; somebody with other devices compares them with yours by --against.

    Exit code 0: every device passes its golden samples, and every two are shown to agree at least
    as often as asked; 1: they do not; 5: more images would decide; 4: passed, but some images
    cannot be read; 3: a device cannot be asked, and nothing is written.
    """
    import tempfile

    from ..bundle import Bundle
    from ..devices.remote import worst
    from ..devices.remote.answers import Question

    with workstation():
        import scipy  # noqa: F401 - what imports it does so late

        from ..data.images import list_images, select_images
        from ..drift.budgets import Budgets
        from ..drift.certificate import join, read_certificate
        from ..reports import check_certificate_path, write_certificate
        from ..workflows.certify import ask_device, golden_images, make_certificate

    if not on:
        raise click.UsageError("give the devices with --on; this machine is --on here")
    if (images is not None) and data is None:
        raise click.UsageError("--images chooses from a folder: give --data DIR")
    Budgets(min_agreement=min_agreement, confidence=confidence).check()
    for path in outputs:
        check_certificate_path(path)
    others = [(read_certificate(path), path) for path in against]
    opened = Bundle(Path(bundle))
    chosen = [] if data is None else select_images(list_images(data), images, seed)
    found, unread = read_images({str(image.path): image.name for image in chosen})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        golden = golden_images(opened, folder)
        question = Question(
            bundle=opened, images=[*found, *golden],
            options=predict_options(backend, allow_fallback, threads),
        )  # fmt: skip

        async def work(session: Session) -> Told:
            return await ask_device(session, question)

        outcomes = run_on(on, work, quiet=as_json)
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            for error in errors:
                click.echo(f"error: {printable(str(error))}", err=True)
            click.echo("no certificate: the same command again asks only what is missing", err=True)
            return worst(error.exit_code for error in errors)
        certificate = make_certificate(
            opened, _told(outcomes), golden, found, folder, min_agreement=min_agreement,
            confidence=confidence, unread=unread,
        )  # fmt: skip
    for other, path in others:
        certificate = join(certificate, other, path)
    for path in outputs:
        write_certificate(certificate, path)
    for outcome in outcomes:
        if outcome.value is not None:
            outcome.value.answers.forget()
    if as_json:
        click.echo(certificate.to_json(), nl=False)
    else:
        _show(certificate, outputs)
    return certificate.exit_code


def _told(outcomes: list[Outcome[Told]]) -> dict[str, Told]:
    return {found.device: found.value for found in outcomes if found.value is not None}


def _show(found: Certificate, outputs: tuple[Path, ...]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..drift import certificate_wording as wording
    from .show import console

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "device", "runs on", "golden samples"):
        table.add_column(heading)
    for place, device in enumerate(found.devices):
        colour = "green" if device.passed else "red"
        table.add_row(
            str(place + 1), Text(printable(device.name)),
            Text(printable(wording.runs_on(device))), f"[{colour}]{wording.golden(device)}[/]",
        )  # fmt: skip
    out.print(table)
    for device in found.devices:
        for note in wording.device_notes(device):
            out.print(printable(note), markup=False)
    if found.pairs:
        pairs = Table(box=None, pad_edge=False, header_style="bold")
        for heading in wording.PAIR_HEADINGS:
            pairs.add_column(heading, justify="right" if "agree" in heading else "left")
        for pair in found.pairs:
            pairs.add_row(*(Text(cell) for cell in wording.pair_row(pair, len(found.images))))
        out.print()
        out.print(pairs)
    for item in found.skipped[:10]:
        out.print(printable(f"left out: {item.image}: {item.reason}"), markup=False)
    colour = {"passed": "green", "failed": "red", "undecided": "yellow"}[found.outcome]
    out.print(f"\n[bold {colour}]{found.outcome}[/]")
    out.print(wording.sentence(found), markup=False)
    for path in outputs:
        out.print(f"-> {printable(str(path))}", markup=False, soft_wrap=True)
