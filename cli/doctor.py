"""``edgecls doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .config import config_option
from .remote import on_option
from .text import print_json

if TYPE_CHECKING:
    from ..devices.doctor import Finding
    from ..devices.remote import Session


@click.command()
@config_option
@on_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(on: tuple[str, ...], as_json: bool) -> int:
    """Say what this machine, or each DEVICE, can export and run, what is missing, and the fix."""
    import msgspec

    from ..devices.doctor import Finding, examine

    if on:
        from .remote import finish, run_on

        async def work(session: Session) -> list[Finding]:
            session.tally.stage = "looking"
            done = await session.edgecls(["doctor", "--json"])
            found: list[Finding] = session.decode(done.out, list[Finding])
            return found

        return finish(
            run_on(on, work, quiet=as_json), as_json=as_json, show=_show,
            builtin=msgspec.to_builtins,
        )  # fmt: skip
    findings = examine()
    if as_json:
        print_json(findings)
    else:
        _show(findings)
    return 0


def _show(findings: Sequence[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from .show import console

    out = console()
    marks = {"ok": "[green]ok[/]", "missing": "[yellow]missing[/]", "info": "[dim]info[/]"}
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        fix = f"\n[bold]fix:[/] {escape(finding.fix)}" if finding.fix else ""
        table.add_row(marks[finding.state], finding.name, escape(finding.detail) + fix)
    out.print(table)
