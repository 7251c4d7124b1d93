"""``edgecls predict``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .config import config_option
from .options import backend_options
from .show import human_ms
from .text import printable

if TYPE_CHECKING:
    from ..runtimes import Prediction


@click.command()
@config_option
@click.argument("bundle", type=click.Path())
@click.argument("images", nargs=-1, required=True)
@click.option("--topk", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line and image.")
@backend_options
def command(
    bundle: str,
    images: tuple[str, ...],
    topk: int,
    as_json: bool,
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
) -> int:
    """Classify each IMAGE with BUNDLE, in the order given.

    An image that cannot be read does not stop the others; the exit code is then 4.
    """
    from ..core.errors import ImageError
    from .options import open_predictor

    predictor = open_predictor(bundle, backend, allow_fallback, threads)
    failed = 0
    for image, result in zip(images, predictor.predict_stream(images, topk), strict=True):
        if isinstance(result, ImageError):
            failed += 1
            if as_json:
                click.echo(json.dumps({"image": image, "error": result.reason}))
            else:
                click.echo(f"error: {printable(image)}: {printable(result.reason)}", err=True)
        elif as_json:
            click.echo(json.dumps(result.to_dict()))
        else:
            _print(result)
    return 4 if failed else 0


def _print(result: Prediction) -> None:
    click.echo(f"{printable(result.image)}  ({human_ms(result.speed_ms)})")
    for ranked in result.topk:
        click.echo(f"  {ranked.score:7.2%}  {printable(ranked.label)}")
