"""`mlopt`: finds a command, runs it, and turns errors into one message and an exit
code. Imports click and nothing heavy."""

from __future__ import annotations

import importlib
import os
import sys

import click

from mlopt import __version__
from mlopt.errors import EXIT_INTERRUPTED, EXIT_OK, MloptError
from mlopt.system.processes import stop_on_signals

COMMANDS = {
    "compress": "prune, fine-tune, quantize, export, check, measure, report: the main job",
    "prune": "prune only, or apply a plan",
    "run": "the same, from a recipe",
    "train": "only the trunk of a recipe: train or fine-tune, give a bundle",
    "export": "exports only: TorchScript, ONNX, AOTInductor, TensorRT",
    "gate": "judge a candidate against its baseline: latency, size, memory, accuracy, parity",
    "bench": "measure artifacts side by side; the first is the baseline",
    "history": "latency over commits: a chain of measured ratios, and where it changed",
    "report": "render the report of a run or of a gate again",
    "inspect": "parameters, MACs, layers, what can be pruned, what runtimes will say",
    "view": "show an ONNX file in Netron, local, nothing sent",
    "doctor": "the environment, and what is missing for which backend",
    "store": "what the store of finished passes holds, and how to clear it",
    "schema": "JSON schema of recipe, policy and records",
}


class Lazy(click.Group):
    """Lists commands from `COMMANDS` and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"mlopt.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlopt")
def group() -> None:
    """Takes a trained PyTorch model and gives back smaller, faster artifacts that were
    checked and measured.

    \b
        mlopt compress model.pt --prune 0.5
    """


def show_error(message: str, hint: str) -> None:
    """One message and one next step, on standard error."""
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    if hint:
        click.echo(click.style(" hint: ", fg="cyan") + hint, err=True)


def main(arguments: list[str] | None = None) -> int:
    """Run and return the exit code. 0 done; see `mlopt/errors.py` for the others."""
    stop_on_signals()
    try:
        result = group.main(arguments, prog_name="mlopt", standalone_mode=False)
        return result if isinstance(result, int) else EXIT_OK
    except MloptError as error:
        show_error(error.message, error.hint)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        show_error(error.format_message(), "see --help of the command")
        return 2
    except (KeyboardInterrupt, click.Abort):
        show_error("interrupted", "run the same command again: finished passes are not redone")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def entry() -> None:
    """The console script."""
    sys.exit(main())
