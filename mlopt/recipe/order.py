"""The passes of a recipe in order: whether they fit together and what they need,
decided before the first one runs and without torch."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt import catalog
from mlopt.artifact import Format
from mlopt.catalog import PassSpec
from mlopt.errors import BackendMissing, RecipeError
from mlopt.recipe.configs import MODULE, PassConfig
from mlopt.recipe.schema import Recipe

ONNX = "model.onnx"


@dataclass(frozen=True)
class Step:
    """One pass of a run: its unique name in the record, its configuration, its line of
    the catalog, and the name of the artifact it takes (`module`, or an export's file
    name)."""

    name: str
    config: PassConfig
    spec: PassSpec
    takes: str

    @property
    def is_trunk(self) -> bool:
        """Whether it changes the module; else it writes a file."""
        return self.spec.role == "trunk"

    @property
    def gives(self) -> str:
        """The name of what it makes."""
        return self.config.gives()


def steps_of(recipe: Recipe, start: str = Format.MODULE) -> list[Step]:
    """The steps in order. `start`: the format of the model. Raises `RecipeError` naming
    the pass that does not fit, `BackendMissing` for what is not installed."""
    have = {MODULE} if start == Format.MODULE else {ONNX}
    names: dict[str, int] = {}
    out: list[Step] = []
    leaf = ""
    for index, config in enumerate(recipe.passes):
        spec = catalog.PASSES[config.pass_]
        where = f"passes[{index}] ({spec.name})"
        takes = config.takes()
        if spec.role == "trunk":
            if leaf:
                raise RecipeError(
                    f"{where} changes the module after {leaf} has exported it", "put the exports last"
                )
            if start != Format.MODULE:
                raise RecipeError(
                    f"{where} needs a PyTorch module, and the model is an ONNX file",
                    "give the module, or leave out this pass",
                )
            if spec.trains and recipe.data is None:
                raise RecipeError(
                    f"{where} needs training data", "say where it is: --data file.npz (recipe: data:)"
                )
        else:
            if takes not in have:
                missing = {MODULE: "the PyTorch module", ONNX: "an onnx pass before it"}.get(
                    takes, f"{takes}, which no earlier pass gives"
                )
                raise RecipeError(f"{where} needs {missing}", "add the pass, or put it first")
            if config.gives() in have:
                raise RecipeError(f"{where} gives {config.gives()} a second time", "leave out one of the two")
            have.add(config.gives())
            leaf = spec.name
        names[spec.name] = names.get(spec.name, 0) + 1
        numbered = spec.name if names[spec.name] == 1 else f"{spec.name}-{names[spec.name]}"
        out.append(Step(config.gives() if config.unnumbered else numbered, config, spec, takes))
        check_backends(spec, config)
    return out


def check_backends(spec: PassSpec, config: PassConfig) -> None:
    """Raises `BackendMissing`, with the install line, when a pass cannot run here."""
    for name in dict.fromkeys((*spec.needs, *config.needs())):
        backend = catalog.BACKENDS[name]
        missing = backend.missing()
        if missing:
            raise BackendMissing(missing, backend.install)
