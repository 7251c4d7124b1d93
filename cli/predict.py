"""``edgecls predict``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.text import name_as_utf8
from .config import config_option
from .options import backend_options, engine_options
from .remote import on_option
from .show import human_ms
from .text import printable

if TYPE_CHECKING:
    from ..runtimes import Prediction, Predictor
    from ..runtimes.engine_options import EngineOptions
    from ..runtimes.logits_file import LogitsWriter


@click.command()
@config_option
@click.argument("bundle", type=click.Path())
@click.argument("images", nargs=-1)
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of images, in the place of IMAGES.",
)  # fmt: skip
@click.option("--topk", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line and image.")
@click.option(
    "--save-logits", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the logits to a file that drift takes in a bundle's place.",
)  # fmt: skip
@on_option
@backend_options
@engine_options
def command(
    bundle: str,
    images: tuple[str, ...],
    data: Path | None,
    topk: int,
    as_json: bool,
    save_logits: Path | None,
    on: tuple[str, ...],
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
    engine: EngineOptions,
) -> int:
    """Classify each IMAGE with BUNDLE, in the order given.

    An image that cannot be read does not stop the others; the exit code is then 4. With --on, of
    several devices' exit codes the first of 70, 3, 2, 4, 1 counts.
    """
    from ..core.errors import ImageError
    from .options import open_predictor

    named = dict(_listed(data)) if data is not None else {name: name for name in images}
    if bool(images) == (data is not None):
        raise click.UsageError("give IMAGES or --data DIR, one of them")
    if on:
        from .remote_predict import predict_on

        return predict_on(
            bundle, named, on, topk=topk, as_json=as_json, save_logits=save_logits,
            backend=backend, allow_fallback=allow_fallback, threads=threads, engine=engine,
        )  # fmt: skip
    predictor = open_predictor(bundle, backend, allow_fallback, threads, engine)
    failed = 0
    paths = list(images) if data is None else list(named)
    results = predictor.predict_stream(paths, topk, logits=save_logits is not None)
    with _recording(predictor, save_logits) as writer:
        for image, result in zip(paths, results, strict=True):
            if writer is not None:
                _record(writer, image, named[image], result)
            if isinstance(result, ImageError):
                failed += 1
                if as_json:
                    click.echo(json.dumps({"image": image, "error": result.reason}))
                else:
                    click.echo(f"error: {printable(image)}: {printable(result.reason)}", err=True)
            elif as_json:
                click.echo(json.dumps(_without_logits(result)))
            elif writer is None:
                _print(result)
    if save_logits is not None and not as_json:
        click.echo(f"logits of {len(paths) - failed} images -> {printable(str(save_logits))}")
    return 4 if failed else 0


def _listed(folder: Path) -> Iterator[tuple[str, str]]:
    from ..data.images import list_images

    for image in list_images(folder):
        yield str(image.path), image.name


@contextlib.contextmanager
def _recording(predictor: Predictor, file: Path | None) -> Iterator[LogitsWriter | None]:
    """Yield what takes the logits; None where they are not wanted."""
    if file is None:
        yield None
        return
    from ..core.version import VERSION
    from ..runtimes.logits_file import LogitsHeader, write_logits

    manifest = predictor.bundle.manifest
    header = LogitsHeader(
        classes=manifest.num_classes,
        preprocess=manifest.preprocess,
        labels=manifest.labels,
        synsets=manifest.synsets,
        target=manifest.target,
        precision=predictor.precision,
        backend=predictor.backend,
        description=dict(predictor.description),
        bundle_sha256=predictor.bundle.sha256,
        artefact=predictor.artefact.path,
        tool=VERSION,
    )
    with write_logits(file, header) as writer:
        yield writer


def _record(writer: LogitsWriter, path: str, name: str, result: Prediction | Exception) -> None:
    from ..core.errors import ImageError
    from ..core.files import sha256_file

    text = name_as_utf8(name)
    if isinstance(result, ImageError):
        writer.add_error(text, result.reason)
    else:
        assert not isinstance(result, Exception)
        writer.add(text, sha256_file(Path(path)), result.logits or ())


def _without_logits(result: Prediction) -> dict[str, object]:
    found = result.to_dict()
    found.pop("logits", None)
    return found


def _print(result: Prediction) -> None:
    click.echo(f"{printable(result.image)}  ({human_ms(result.speed_ms)})")
    for ranked in result.topk:
        click.echo(f"  {ranked.score:7.2%}  {printable(ranked.label)}")
