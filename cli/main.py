"""The group of commands, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from typing import Any, Final

import click

from ..core.errors import EdgeclsError
from ..core.version import VERSION
from .text import printable_lines

# Each is cli/NAME.py with a function `command`; a command's modules are imported when it runs. Two
# words are a command of its own, in cli/TWO_WORDS.py: `calibrate MODEL` and `calibrate show TABLE`.
COMMANDS: Final = {
    "targets": "What can be built for, and what each can run.",
    "data": "Say what is in a data set, and what is wrong with it.",
    "models": "List the classifiers that can be trained and exported, with what they cost.",
    "train": "Train a classifier on images, from scratch or from a checkpoint.",
    "tune": "Search for a training's best hyperparameters.",
    "prune": "Make a trained classifier smaller or faster, and train it again.",
    "qat": "Train a classifier to be quantized: the scales learn too.",
    "distill": "Train a classifier on the answers of a better one.",
    "recipe": "Prune, distill, qat, export and judge, as a file says; what each costs and gains.",
    "evaluate": "Say how often a model is right, where it is wrong, and how sure it is.",
    "export": "Turn a trained classifier into one bundle per target.",
    "calibrate": "Measure the ranges of a model's tensors on images, or check the images.",
    "calibrate show": "Plot a calibration table.",
    "calibrate diff": "Say which tensors' ranges differ between two tables.",
    "calibrate compare": "Compare the calibration methods on images that none has seen.",
    "calibrate merge": "Add up tables of parts, or write one as a TensorRT cache.",
    "sensitivity": "Say what each layer costs in int8, all others left in float.",
    "sweep": "Export in every precision and recipe: accuracy against size and latency.",
    "build": "Build a bundle's TensorRT engine ahead of its first load.",
    "predict": "Classify images with a bundle.",
    "serve": "Answer HTTP requests with a bundle, with a page to try it.",
    "drift": "Say what a conversion cost, and judge it.",
    "inspect": "Say what is in a bundle.",
    "verify": "Check a bundle: hashes, schema, golden samples.",
    "bench": "Measure a bundle: latency, memory, cold start, throttling.",
    "bench compare": "Say whether a measurement is slower than another.",
    "certify": "Certify that devices answer alike to the same images.",
    "doctor": "Say what this machine can export and run, and what is missing.",
    "device create": "Make a Raspberry Pi that runs here, emulated.",
    "device list": "Say which virtual devices there are.",
    "device run": "Run edgecls or python3 on a virtual device.",
    "device install": "Put edgecls on a device over SSH, from a wheel.",
    "device clear": "Remove what was sent to a device.",
    "demo": "Train LeNet-5 on digits, export it, and show all that follows.",
}


# What a shell reports of a program that SIGPIPE ended.
BROKEN_PIPE: Final = 141


class Commands(click.Group):
    """Imports a command only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a first use."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name.replace(' ', '_')}", __package__)
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command of two words before one of one."""
        if " ".join(args[:2]) in COMMANDS:
            args = [" ".join(args[:2]), *args[2:]]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="edgecls")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def edgecls(debug: bool) -> None:
    """Trained PyTorch classifiers on Jetson, Raspberry Pi and desktop GPU, proved."""
    del debug


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if args is None else args
    own = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:own]
    if debug:  # wherever it stands, not only before the command
        arguments = ["--debug", *(a for a in arguments[:own] if a != "--debug"), *arguments[own:]]
    try:
        code: Any = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except EdgeclsError as error:
        code = _fail(error, error.exit_code, debug)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        code = 130
    except BrokenPipeError:
        # Whoever read our output is gone; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    except OSError as error:
        code = _fail(error, _os_error_code(error), debug, _os_error_text(error))
    except MemoryError as error:
        code = _fail(error, 3, debug, "not enough memory on this machine")
    except Exception as error:
        text = f"a bug in edgecls: {type(error).__name__}: {error}; --debug shows where"
        code = _fail(error, 70, debug, text)
    sys.exit(code if isinstance(code, int) else 0)


def _run(arguments: list[str]) -> Any:
    if "_EDGECLS_COMPLETE" in os.environ:  # a shell asks for completions
        return edgecls.main(prog_name="edgecls")
    # Not click's own main: it ends with 1, our failed gate, where a reader of our output left.
    with edgecls.make_context("edgecls", arguments) as context:
        return edgecls.invoke(context)


def _fail(error: BaseException, code: int, debug: bool, text: str | None = None) -> int:
    if debug:
        traceback.print_exception(error)
    click.echo(f"error: {printable_lines(text or str(error))}", err=True)
    return code


def _os_error_code(error: OSError) -> int:
    missing_here = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EMFILE}
    return 3 if error.errno in missing_here else 4


def _os_error_text(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    hint = "; free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    return f"{name}{error.strerror or error}{hint}"
