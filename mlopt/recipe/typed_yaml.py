"""YAML into frozen pydantic models: the recipe, the gate's policy. Unknown and double
keys, aliases and bad values are refused with their line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mlopt.errors import RecipeError, UsageError

MAX_BYTES = 256 * 1024
M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """Base of everything that is written in YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases and duplicate keys, and remembers the line of
    every value."""


def _fail(mark: Any, what: str, where: str, hint: str) -> RecipeError:
    line = f"{where}:{mark.line + 1}" if mark is not None else where
    return RecipeError(f"{line}: {what}", hint)


def _lines(
    node: yaml.Node, where: str, hint: str, at: tuple[Any, ...], out: dict[tuple[Any, ...], int]
) -> None:
    out[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise _fail(key.start_mark, f"the key '{key.value}' is given twice", where, hint)
            seen.add(key.value)
            _lines(value, where, hint, (*at, key.value), out)
            out[(*at, key.value)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _lines(value, where, hint, (*at, index), out)


def _plain(text: str, where: str, noun: str, hint: str) -> tuple[Any, dict[tuple[Any, ...], int]]:
    """The plain value of a YAML text, and the line of every path in it."""
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise _fail(
                    event.start_mark, f"YAML anchors and aliases are not allowed in a {noun}", where, hint
                )
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise RecipeError(f"{where}: the {noun} is empty", hint)
        lines: dict[tuple[Any, ...], int] = {}
        _lines(node, where, hint, (), lines)
        return yaml.load(text, Loader=_Loader), lines  # noqa: S506 - _Loader is a SafeLoader
    except yaml.YAMLError as error:
        raise _fail(
            getattr(error, "problem_mark", None), str(getattr(error, "problem", error)), where, hint
        ) from error
    except RecursionError as error:
        raise RecipeError(f"{where}: nested too deeply") from error


def parse(model: type[M], text: str, where: str, noun: str, hint: str) -> M:
    """One of our models from YAML. Raises `RecipeError` naming the line."""
    data, lines = _plain(text, where, noun, hint)
    if not isinstance(data, dict):
        raise RecipeError(
            f"{where}:1: a {noun} is a mapping with the keys {', '.join(list(model.model_fields)[1:4])}, ...",
            hint,
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = first["loc"]
        line = max((line for at, line in lines.items() if at == path[: len(at)]), default=1)
        known = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        name = ".".join(str(part) for part in path)
        raise RecipeError(f"{where}:{line}: {name}: {known}", hint) from error


def load(model: type[M], path: Path, noun: str, hint: str) -> M:
    """The same from a file of at most 256 kB. Raises `RecipeError`, or `UsageError`
    when it cannot be read."""
    try:
        if os.stat(path).st_size > MAX_BYTES:
            raise RecipeError(f"{path} is larger than {MAX_BYTES // 1024} kB: that is no {noun}")
        return parse(model, path.read_text(encoding="utf-8"), str(path), noun, hint)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", f"give the path of a {noun}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not a text file", f"give the path of a {noun}") from error
