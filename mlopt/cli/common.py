"""Options that several commands share, and how results and progress are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlopt.system.progress import Kind

if TYPE_CHECKING:
    from mlopt.model.trust import Trust

UNLIMITED = 100_000
"""A file or a pipe has no width of its own: a path that is folded there can be neither
read nor copied."""
F = TypeVar("F", bound=Callable[..., Any])


def stack(*decorators: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several options as one decorator, in the order written."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


output_options = stack(
    click.option("--json", "as_json", is_flag=True, help="The result as JSON on standard output, unstyled."),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
    click.option("-v", "--verbose", is_flag=True, help="More progress."),
    click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        help="NO_COLOR is honoured.",
    ),
)

trust_options = stack(
    click.option(
        "--arch", metavar="PKG.MOD:FACTORY", help="What builds the network that a state dict belongs to."
    ),
    click.option(
        "--arch-arg",
        "arch_args",
        multiple=True,
        metavar="NAME=VALUE",
        help="A keyword argument of the factory; repeatable.",
    ),
    click.option(
        "--allow-class",
        "allow_class",
        multiple=True,
        metavar="PKG.MOD.CLASS",
        help="A class that a model file may name; PKG.MOD.* for all.",
    ),
    click.option(
        "--trust-code", is_flag=True, help="Run what the file contains. Only for files you made yourself."
    ),
)

out_option = click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The run directory. Default: named after the model, in the working directory.",
)

store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where finished passes are kept. Default: the user's cache.",
)

where_options = (
    out_option,
    store_option,
    click.option("--dry-run", is_flag=True, help="Say what would run, with sizes, and run nothing."),
    click.option("--plan", "plan_only", is_flag=True, hidden=True),
)

input_option = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]DIMS[:DTYPE]",
    help="1,3,224,224 or ids=batch,128:int64; a word is dynamic; repeatable.",
)


def parse_arguments(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`width=64` as {"width": 64}; values are JSON where they can be. Raises
    `UsageError`."""
    from mlopt.errors import UsageError

    out: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--arch-arg {pair} is not NAME=VALUE", "for example --arch-arg width=64")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out


def trust_of(options: dict[str, Any]) -> Trust:
    """What `trust_options` allow. Raises `UsageError`."""
    from mlopt.model.trust import Trust

    return Trust(
        options["arch"], parse_arguments(options["arch_args"]), options["allow_class"], options["trust_code"]
    )


def comma(
    ctx: click.Context, parameter: click.Parameter, value: str | tuple[str, ...] | None
) -> tuple[str, ...]:
    """`onnx,torchscript`, repeatable, as a tuple without duplicates."""
    values = (value,) if isinstance(value, str) else value or ()
    return tuple(dict.fromkeys(part.strip() for item in values for part in item.split(",") if part.strip()))


def ints(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """`1,8` as (1, 8)."""
    try:
        out = tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"'{value}' is not a list of whole numbers") from error
    if any(number < 1 for number in out):
        raise click.BadParameter("sizes start at 1")
    return out


class Screen:
    """Results on standard output, progress on standard error: a spinner on a terminal,
    one line a step elsewhere."""

    def __init__(self, as_json: bool, quiet: bool, verbose: bool, color: str) -> None:
        from rich.console import Console

        force = {"always": True, "never": False, "auto": None}[color]
        options: dict[str, Any] = {
            "force_terminal": force if force else None,
            "no_color": color == "never" or None,
            "highlight": False,
        }
        self.out, self.log = Console(**options), Console(stderr=True, **options)
        self._folds = sys.stdout.isatty()
        if not self._folds:
            self.out.width = UNLIMITED
        self.as_json, self._quiet, self._verbose = as_json, quiet, verbose
        self._status: Any = None

    def say(self, line: str, kind: Kind = "done") -> None:
        """One line of progress: on a terminal, what is at work is a spinner; details
        are for `-v`."""
        if self._quiet or (kind == "detail" and not self._verbose):
            return
        from rich.markup import escape

        if kind == "working" and self.log.is_terminal:
            if self._status is None:
                self._status = self.log.status(escape(line))
                self._status.start()
            self._status.update(escape(line))
        elif kind == "detail":
            self.log.print("    " + escape(line), soft_wrap=True)
        elif kind == "done":
            self.log.print(escape(line), soft_wrap=True)

    def line(self, text: str) -> None:
        """One line of the result, as it is."""
        self.out.print(text, markup=False, soft_wrap=True)

    def done(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def table(self, columns: tuple[str, ...], rows: list[tuple[str, ...]], left: int = 1) -> None:
        """A table on standard output; all columns but the first `left` are figures.
        Only a terminal folds long cells."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(
                column,
                justify="left" if index < left else "right",
                no_wrap=index >= left or not self._folds,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.out.print(table)

    def json(self, data: Any) -> None:
        """The result, for scripts."""
        sys.stdout.write(json.dumps(data, indent=1, default=str) + "\n")


def screen_of(options: dict[str, Any]) -> Screen:
    """The screen that `output_options` ask for."""
    return Screen(options["as_json"], options["quiet"], options["verbose"], options["color"])
