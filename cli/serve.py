"""``edgecls serve``."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import MissingPackageError
from .config import config_option
from .options import backend_options, engine_options, open_predictor
from .text import printable

if TYPE_CHECKING:
    from ..runtimes import Predictor
    from ..runtimes.engine_options import EngineOptions


@click.command()
@config_option
@click.argument("bundle", type=click.Path())
@click.option(
    "--host", default="127.0.0.1", show_default=True,
    help="The address to listen on; 0.0.0.0 lets the network in.",
)  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True,
    help="Processes that answer, each with the model in its memory.",
)  # fmt: skip
@click.option(
    "--max-wait-ms", type=click.FloatRange(0, 1000), default=5.0, show_default=True,
    help="How long an image waits for others that are being decoded.",
)  # fmt: skip
@click.option(
    "--queue", type=click.IntRange(1, 100_000), default=32, show_default=True,
    help="The most images of a process that were accepted and not answered yet; above it: 503.",
)  # fmt: skip
@click.option(
    "--max-upload-mb", type=click.IntRange(1, 256), default=8, show_default=True,
    help="The largest body of a request, in MiB.",
)  # fmt: skip
@click.option(
    "--max-megapixels", type=click.FloatRange(0.001, 89), default=25.0, show_default=True,
    help="The largest image that is decoded.",
)  # fmt: skip
@click.option(
    "--max-images", type=click.IntRange(1, 1024), default=16, show_default=True,
    help="The most images of a request.",
)  # fmt: skip
@click.option(
    "--timeout-s", type=click.FloatRange(0.1, 600), default=10.0, show_default=True,
    help="For a request's body to arrive, and again for its answer.",
)  # fmt: skip
@click.option(
    "--api-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the key that clients must send; else $EDGECLS_API_KEY.",
)  # fmt: skip
@backend_options
@engine_options
def command(
    bundle: str,
    host: str,
    port: int,
    workers: int,
    max_wait_ms: float,
    queue: int,
    max_upload_mb: int,
    max_megapixels: float,
    max_images: int,
    timeout_s: float,
    api_key_file: Path | None,
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
    engine: EngineOptions,
) -> int:
    """Answer HTTP requests with BUNDLE, and show a page to try it at /.

    Every hash and golden sample is checked first. --max-batch holds for every backend that takes
    several images at once. SIGTERM ends it when what was accepted is
    answered; SIGHUP opens BUNDLE afresh and lets it take over where it proves good.
    """
    try:
        import fastapi  # noqa: F401
        import httptools  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "fastapi", "serve") from error
    from ..serve.settings import KEY_VARIABLE, Settings, find_api_key
    from ..serve.supervisor import Supervisor, is_loopback, listen

    if max_images > queue:
        raise click.UsageError("--queue must hold a request's images: raise it to --max-images")
    api_key = find_api_key(api_key_file)
    # The log is for faults and reloads; what a client sent stands in none.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    cores = len(os.sched_getaffinity(0))
    listener = listen(host, port)
    local_only = is_loopback(host)
    settings = Settings(
        max_batch=engine.max_batch,
        max_wait_ms=max_wait_ms,
        queue=queue,
        max_upload_bytes=max_upload_mb << 20,
        max_pixels=int(max_megapixels * 1e6),
        max_images=max_images,
        timeout_s=timeout_s,
        decoders=max(1, cores // workers),
        api_key=api_key,
        local_only=local_only,
    )

    def opened() -> Predictor:
        return open_predictor(bundle, backend, allow_fallback, threads, engine)

    if settings.api_key is None and not local_only:
        click.echo(
            f"warning: {host} lets other machines in, and there is no API key: set ${KEY_VARIABLE} "
            "or give --api-key-file",
            err=True,
        )
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}"

    def ready() -> None:
        count = "one process" if workers == 1 else f"{workers} processes"
        click.echo(f"{printable(bundle)} answers on {url} with {count}")

    return Supervisor(opened, settings, listener, workers, ready).run()
