"""The recipe: what is done to a model, as YAML and as frozen pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from mlopt import catalog
from mlopt.recipe import typed_yaml
from mlopt.recipe.configs import PassConfig, Positive
from mlopt.recipe.typed_yaml import Frozen


class _ByName:
    """Passes are told apart by their `pass:` key, which the catalog knows; so one that
    is registered later is read too."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def dump(config: PassConfig, info: core_schema.SerializationInfo) -> Any:
            return config.model_dump(mode=info.mode, by_alias=bool(info.by_alias))

        as_written = core_schema.plain_serializer_function_ser_schema(dump, info_arg=True)
        return core_schema.no_info_plain_validator_function(config_of, serialization=as_written)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        kinds = [catalog.load(spec.config) for spec in catalog.PASSES.values()]
        return handler(core_schema.union_schema([TypeAdapter(kind).core_schema for kind in kinds]))


AnyPass = Annotated[PassConfig, _ByName]


def config_of(value: Any) -> PassConfig:
    """The configuration of one pass from its plain values. Raises `ValueError` for a
    pass that is not in the catalog."""
    if isinstance(value, PassConfig):
        return value
    name = value.get("pass", value.get("pass_")) if isinstance(value, dict) else None
    if name is None:
        raise ValueError("an entry of passes is a mapping with the key pass")
    if not isinstance(name, str) or name not in catalog.PASSES:
        raise ValueError(f"there is no pass {name!r}; there are {', '.join(catalog.PASSES)}")
    kind: type[PassConfig] = catalog.load(catalog.PASSES[name].config)
    return kind.model_validate(value)


class Model(Frozen):
    """Where the model comes from, and what its file may name. See
    `docs/security.md`."""

    path: str = Field(
        description=(
            "A file, a bundle, or package.module:factory. A relative path is read from the working directory."
        )
    )
    arch: str | None = Field(
        None, description="package.module:factory that builds the module a state dict belongs to."
    )
    arch_args: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the factory.")
    allow_class: tuple[str, ...] = Field(
        (), description="Classes that a pickled module may name: package.module.Class or package.module.*"
    )
    trust_code: bool = Field(
        False, description="Run whatever the file contains. Only for files you made yourself."
    )

    @property
    def factory(self) -> str | None:
        """The factory, when `path` names one."""
        head, colon, tail = self.path.partition(":")
        named = colon and all(part.isidentifier() for part in (*head.split("."), *tail.split(".")))
        return self.path if named else None


class Tolerance(Frozen):
    """How far an artifact may be from the module it came from. `max_error` is relative
    to the largest reference output."""

    max_error: Annotated[float, Field(gt=0)]
    min_cosine: Annotated[float, Field(gt=0, le=1)]


class Parity(Frozen):
    """One tolerance a precision; a NaN or an Inf always fails."""

    samples: Positive = 64
    fp32: Tolerance = Tolerance(max_error=1e-3, min_cosine=0.99999)
    fp16: Tolerance = Tolerance(max_error=5e-2, min_cosine=0.999)
    int8: Tolerance = Tolerance(max_error=1.0, min_cosine=0.9)


class Bench(Frozen):
    """How latency is measured: blocks of calls, interleaved over all artifacts, each in
    a process of its own."""

    threads: Positive = 1
    batch: tuple[Positive, ...] = (1,)
    budget_s: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Seconds of sampling for each batch size, at most."
    )
    enabled: bool = True


class Recipe(Frozen):
    """A whole run."""

    version: Literal[1] = 1
    model: Model
    input: tuple[str, ...] = Field(
        (), description="[name=]dims[:dtype], in positional order; a word is a dynamic dimension."
    )
    data: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    nproc: Positive = 1
    max_drop: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Accuracy points that may be lost."
    )
    passes: Annotated[tuple[AnyPass, ...], Field(min_length=1)]
    parity: Parity = Parity()
    bench: Bench = Bench()

    def to_yaml(self) -> str:
        """The recipe as a file that gives this recipe again; defaults are written out,
        so that later defaults change nothing."""
        return yaml.safe_dump(
            self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True
        )


_HINT = "`mlopt schema` prints what a recipe may hold; recipes/ has some to start from"


def parse(text: str, where: str = "recipe") -> Recipe:
    """A recipe from YAML. Raises `RecipeError` naming the line."""
    return typed_yaml.parse(Recipe, text, where, "recipe", _HINT)


def load(path: Path) -> Recipe:
    """A recipe from a file of at most 256 kB. Raises `RecipeError`, or `UsageError`
    when it cannot be read."""
    return typed_yaml.load(Recipe, path, "recipe", _HINT)
