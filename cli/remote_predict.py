"""``edgecls predict --on``, and the answers that drift compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.text import name_as_utf8
from ..runtimes.engine_options import DEFAULT, EngineOptions
from .remote import finish, predict_options, read_images, run_on
from .show import human_ms
from .text import printable

if TYPE_CHECKING:
    from ..devices.remote import Answers, Image, Outcome, Session
    from ..devices.remote.answers import Line


def ask_devices(
    bundle: str,
    images: Sequence[Image],
    on: Sequence[str],
    *,
    topk: int = 5,
    backend: str | None,
    allow_fallback: bool,
    threads: int | None,
    engine: EngineOptions = DEFAULT,
    quiet: bool,
) -> list[Outcome[Answers]]:
    """Return what every device answers to the images."""
    from ..bundle import Bundle
    from ..devices.remote import ask
    from ..devices.remote.answers import Question

    question = Question(
        bundle=Bundle(Path(bundle)), images=images, topk=topk,
        options=predict_options(backend, allow_fallback, threads, engine),
    )  # fmt: skip

    async def work(session: Session) -> Answers:
        return await ask(session, question)

    return run_on(on, work, quiet=quiet)


def predict_on(
    bundle: str,
    named: dict[str, str],
    on: Sequence[str],
    *,
    topk: int,
    as_json: bool,
    save_logits: Path | None,
    **options: Any,
) -> int:
    """Classify images on devices, and print what each says.

    Args:
        bundle: As the user called it.
        named: Of each image's path, what to call it in a file of logits.
        on: The devices.
        topk: As ``edgecls predict`` has it, and so on.
        as_json: Whether it is JSON.
        save_logits: A file for the logits.
        **options: Those of ``backend_options``, and ``engine``.
    """
    from ..devices.remote import Outcome
    from ..devices.remote.answers import Line

    if save_logits is not None and len(on) > 1:
        raise click.UsageError("--save-logits writes one file: give one --on")
    paths = {path: path for path in named}
    images, errors = read_images(paths)
    outcomes = ask_devices(bundle, images, on, topk=topk, quiet=as_json, **options)

    def lines(answers: Answers) -> list[Line]:
        found = {line.image: line for line in answers.lines(images)}
        return [found.get(path) or Line(image=path, error=errors[path]) for path in paths]

    def show(found: list[Line]) -> None:
        for line in found:
            if line.error:
                text = f"error: {printable(line.image)}: {printable(line.error)}"
                click.echo(text, err=True)
            elif save_logits is None:
                click.echo(f"{printable(line.image)}  ({human_ms(line.speed_ms)})")
                for ranked in line.topk:
                    click.echo(f"  {ranked.score:7.2%}  {printable(ranked.label)}")
        if save_logits is not None:
            read = sum(not line.error for line in found)
            click.echo(f"logits of {read} images -> {printable(str(save_logits))}")

    for outcome in outcomes:
        if outcome.value is not None and save_logits is not None:
            write_answers(outcome.value, save_logits, images, errors, named)
    said = [
        Outcome(
            device=outcome.device,
            value=None if outcome.value is None else lines(outcome.value),
            error=outcome.error,
        )
        for outcome in outcomes
    ]
    code = finish(
        said,
        as_json=as_json,
        show=show,
        builtin=lambda found: [_builtin(line) for line in found],
        code_of=lambda found: 4 if any(line.error for line in found) else 0,
    )
    forget(outcomes)
    return code


def write_answers(
    answers: Answers,
    file: Path,
    images: Sequence[Image],
    errors: dict[str, str],
    named: dict[str, str],
) -> None:
    """Write a file of logits as ``predict --save-logits`` does; a name's odd bytes are escaped."""
    import dataclasses

    def text(path: str) -> str:
        return name_as_utf8(named[path])

    called = [dataclasses.replace(image, name=text(image.name)) for image in images]
    answers.write(file, called, {text(path): reason for path, reason in errors.items()})


def forget(outcomes: Sequence[Outcome[Answers]]) -> None:
    """Remove what was kept for going on, now that it was delivered."""
    for outcome in outcomes:
        if outcome.value is not None:
            outcome.value.forget()


def _builtin(line: Line) -> Any:
    import msgspec

    return msgspec.to_builtins(line)
