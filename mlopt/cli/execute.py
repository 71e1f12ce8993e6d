"""What `compress`, `run`, `train`, `export` and `prune` do once they have a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.cli.common import Screen, parse_arguments, screen_of

if TYPE_CHECKING:
    from mlopt.recipe.from_options import Wanted
    from mlopt.recipe.schema import Recipe


@dataclass(frozen=True)
class Where:
    """Where a run writes, and whether it runs at all. `store` None: the user's."""

    directory: Path
    store: Path | None = None
    dry_run: bool = False


def default_directory(model: str) -> Path:
    """Where results go without -o: beside nothing, in the working directory, named
    after the model."""
    stem = Path(model.partition(":")[0]).stem or "model"
    return Path(f"{stem.rpartition('.')[2]}-mlopt")


def where_of(options: dict[str, Any], model: str, screen: Screen) -> Where:
    """What -o, --store and --dry-run say. `--plan` is the old name of --dry-run."""
    if options.get("plan_only"):
        screen.say("--plan is now called --dry-run here: a plan is what pruning decided (plan.json)")
    dry_run = bool(options.get("dry_run") or options.get("plan_only"))
    return Where(options["out"] or default_directory(model), options["store"], dry_run)


def model_of(options: dict[str, Any]) -> Any:
    """The model of a recipe from `trust_options`."""
    from mlopt.recipe.schema import Model

    return Model(
        path=options["model"],
        arch=options["arch"],
        arch_args=parse_arguments(options["arch_args"]),
        allow_class=options["allow_class"],
        trust_code=options["trust_code"],
    )


def run_wanted(options: dict[str, Any], wanted: Wanted) -> int:
    """Build a recipe from what was asked for, and run it."""
    from mlopt.recipe.from_options import build_recipe

    screen = screen_of(options)
    recipe = build_recipe(model_of(options), wanted)
    return execute(recipe, where_of(options, options["model"], screen), screen)


def show_steps(recipe: Recipe, directory: Path, screen: Screen) -> None:
    """What would run, with the sizes of its inputs; nothing is loaded."""
    from mlopt.artifact import Format
    from mlopt.recipe.order import steps_of

    start = Format.ONNX if recipe.model.path.endswith(".onnx") else Format.MODULE
    steps = steps_of(recipe, start)
    path = Path(recipe.model.path)
    size = path.stat().st_size if path.is_file() else None
    if screen.as_json:
        passes = [
            {"name": s.name, "takes": s.takes, "config": s.config.model_dump(mode="json", by_alias=True)}
            for s in steps
        ]
        screen.json(
            {"model": recipe.model.path, "bytes": size, "directory": str(directory), "passes": passes}
        )
        return
    screen.line(f"{recipe.model.path}{f'  {size / 1e6:.2f} MB' if size else ''}  ->  {directory}")
    for number, step in enumerate(steps, 1):
        config = {key: value for key, value in step.config.model_dump(mode="json").items() if key != "pass_"}
        screen.line(f"  {number}. {step.name}  takes {step.takes}  {config}")


def execute(recipe: Recipe, where: Where, screen: Screen) -> int:
    """Run, show the table, return the exit code."""
    if where.dry_run:
        show_steps(recipe, where.directory, screen)
        return 0
    from mlopt.run.runner import run
    from mlopt.run.store import Store, default_place

    before = _written_at(where.directory)
    try:
        run(recipe, where.directory, Store(where.store or default_place()), screen.say)
    except BaseException:
        screen.done()
        if _written_at(where.directory) not in (None, before):  # what this run wrote, not an older one
            _show(where.directory, screen)
        raise
    screen.done()
    _show(where.directory, screen)
    return 0


def _written_at(directory: Path) -> int | None:
    """When the reports of a directory were written; None without any."""
    try:
        return (directory / "report.md").stat().st_mtime_ns
    except OSError:
        return None


def _show(directory: Path, screen: Screen) -> None:
    """The table of artifacts, what matters most, and where everything lies."""
    from mlopt.records import run as records
    from mlopt.records.edge import to_json
    from mlopt.report.run import ARTIFACTS, run_document

    record = records.read(directory)
    if screen.as_json:
        screen.json(to_json(record))
        return
    document = run_document(record)
    artifacts = document.table(ARTIFACTS)
    if artifacts is not None:
        screen.log.print()
        screen.table(artifacts.columns, list(artifacts.rows))
        screen.line("")
    for line in document.headlines:
        screen.line(line)
    if any(entry.role == "trunk" and entry.status in ("ok", "cached") for entry in record.passes):
        screen.line(f"model   {directory / 'model'}  (mlopt.load gives it back)")
    for plan in record.plans:
        screen.line(f"plan    {directory / plan}")
    screen.line(f"report  {directory / 'report.html'}")
