"""``edgecls doctor``."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(as_json: bool) -> None:
    """Say what this machine can export and run, and what is missing, with the fix."""
    import msgspec
    from rich.markup import escape
    from rich.table import Table

    from ..devices.doctor import examine
    from .show import console

    findings = examine()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings), indent=2))
        return
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
