"""``edgecls device run``."""

from __future__ import annotations

import click


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def command(name: str, arguments: tuple[str, ...]) -> int:
    """Run edgecls or python3 on a virtual device; the exit code is theirs.

    It sees the files of this machine, and of its environment only HOME, TERM and EDGECLS_*.
    For example: edgecls device run pi5 edgecls predict out/raspberry-pi photo.jpg
    """
    from ..core.errors import UsageError
    from ..devices.virtual import created

    there = created()
    if name not in there:
        raise UsageError(
            f"expected a device of {', '.join(there) or 'none'}, found {name!r}; make one with: "
            "edgecls device create pi5"
        )
    return there[name].run(arguments, capture=False).returncode
