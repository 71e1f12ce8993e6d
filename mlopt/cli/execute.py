"""What `compress`, `run`, `train` and `export` do once they have a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlopt.cli.common import Screen, parse_arguments
from mlopt.recipe.schema import Recipe


def default_directory(model: str) -> Path:
    """Where results go without -o: beside nothing, in the working directory, named after the model."""
    stem = Path(model.partition(":")[0]).stem or "model"
    return Path(f"{stem.rpartition('.')[2]}-mlopt")


def show_plan(recipe: Recipe, directory: Path, screen: Screen) -> None:
    """What would run, with the sizes of its inputs; nothing is loaded."""
    from mlopt.artifact import Format
    from mlopt.recipe.order import plan

    start = Format.ONNX if recipe.model.path.endswith(".onnx") else Format.MODULE
    steps = plan(recipe, start)
    path = Path(recipe.model.path)
    size = path.stat().st_size if path.is_file() else None
    if screen.as_json:
        passes = [{"name": step.name, "takes": step.takes, "config": step.step.model_dump(mode="json", by_alias=True)} for step in steps]
        screen.json({"model": recipe.model.path, "bytes": size, "directory": str(directory), "passes": passes})
        return
    screen.out.print(f"{recipe.model.path}{f'  {size / 1e6:.2f} MB' if size else ''}  ->  {directory}", markup=False)
    for number, step in enumerate(steps, 1):
        config = {key: value for key, value in step.step.model_dump(mode="json").items() if key != "pass_"}
        screen.out.print(f"  {number}. {step.name}  takes {step.takes}  {config}", markup=False, soft_wrap=True)


def compress_like(options: dict[str, Any], **own: Any) -> int:
    """Build a recipe from the options that `compress` and `export` share and from a command's `own`, and run it."""
    from mlopt.recipe.from_options import build_recipe
    from mlopt.recipe.schema import Model

    screen = Screen(options["as_json"], options["quiet"], options["verbose"], options["color"])
    model = Model(
        path=options["model"],
        arch=options["arch"],
        arch_args=parse_arguments(options["arch_args"]),
        allow_class=options["allow_class"],
        trust_code=options["trust_code"],
    )
    recipe = build_recipe(
        model,
        quantize=options["quantize"],
        target=options["target"] or ("cpu",),
        input=options["inputs"],
        data=options["data"],
        seed=options["seed"],
        threads=options["threads"],
        batch=options["batch"],
        device=options["device"],
        bench=not options["no_bench"],
        budget_s=options["budget"],
        **own,
    )
    return execute(recipe, options["out"] or default_directory(options["model"]), screen, options["plan_only"])


def execute(recipe: Recipe, directory: Path, screen: Screen, plan_only: bool) -> int:
    """Run, show the table, return the exit code."""
    if plan_only:
        show_plan(recipe, directory, screen)
        return 0
    from mlopt.run.runner import Pipeline

    try:
        run = Pipeline(recipe, directory, screen.say).run()
    except BaseException:
        screen.done()
        if (directory / "report.md").is_file() and (directory / "run.json").is_file():
            _show(directory, screen)
        raise
    screen.done()
    _show(run.directory, screen)
    return 0


def _show(directory: Path, screen: Screen) -> None:
    from mlopt.records import files as record
    from mlopt.report.document import ARTIFACTS, summarise

    data: dict[str, Any] = record.read(directory)
    if screen.as_json:
        screen.json(data)
        return
    document = summarise(data)
    artifacts = document.table(ARTIFACTS)
    if artifacts is not None:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for index, column in enumerate(artifacts.columns):
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
        for row in artifacts.rows:
            table.add_row(*row)
        screen.out.print()
        screen.out.print(table)
        screen.out.print()
    for line in document.headlines:
        screen.out.print(line, markup=False, soft_wrap=True)
    screen.out.print(f"report  {directory / 'report.html'}", markup=False, soft_wrap=True)
