"""The edge: typed records to JSON and back. The only place where a record is a
dictionary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BeforeValidator, JsonValue, PlainSerializer, TypeAdapter, ValidationError, WithJsonSchema

from mlopt.errors import UsageError
from mlopt.system.files import explain_os_error, write_atomic

T = TypeVar("T")
Json = dict[str, JsonValue]
"""A JSON object whose keys are not ours to name: a pass's configuration and figures, a
recipe, a policy."""

UpperBound = Annotated[
    float,
    BeforeValidator(lambda value: math.inf if value is None else value),
    PlainSerializer(lambda value: None if math.isinf(value) else value),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
"""The upper end of an interval: infinite where nothing is known, and `null` in JSON,
which has no infinity."""

MAX_BYTES = 256 * 2**20
"""The largest record that is read: far above that of any run."""


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Building one takes milliseconds: each type has one, made when it is first
    needed."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def to_json(record: object) -> Json:
    """A record as plain JSON values; numbers that JSON does not have (NaN, infinities)
    become `null`."""
    return cast(
        Json, plain(_adapter(type(record)).dump_python(record, mode="json", by_alias=True, warnings="none"))
    )


def plain(value: Any) -> Any:
    """Containers as JSON has them: mappings, lists, and no number that is not
    finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def from_json(kind: type[T], data: object, where: str, what: str, hint: str) -> T:
    """A record from plain JSON values; keys that it does not know are left out. Raises
    `UsageError` naming the first wrong key.

    `what`: what `where` should be, in words (`a record of a run`).
    """
    try:
        return cast(T, _adapter(kind).validate_python(data))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where} is not {what}: {f'{key}: ' if key else ''}{first['msg']}", hint) from error


def schema_of(kind: type[T]) -> Json:
    """The JSON schema of a record."""
    return cast(Json, _adapter(kind).json_schema(by_alias=True, mode="serialization"))


def text_of(data: object) -> str:
    """JSON as mlopt writes it."""
    return json.dumps(plain(data), indent=1, allow_nan=False, default=str) + "\n"


def write_json(path: Path, data: object) -> None:
    """Replace a JSON file, atomically. Raises `UsageError` when the place cannot be
    written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text_of(data).encode())
    except OSError as error:
        raise explain_os_error(error, path) from error


def read_json(path: Path, what: str, hint: str) -> Json:
    """A JSON object from a file. Raises `UsageError` when it cannot be read, or is
    something else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than {MAX_BYTES >> 20} MiB: that is not {what}", hint)
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", hint) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not {what}: {error}", hint) from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} is not {what}: it holds a {type(data).__name__}", hint)
    return data


def check_version(data: Json, newest: int, where: str, what: str, hint: str) -> None:
    """Raises `UsageError` when a record does not say which schema it follows, or
    follows one that is newer than we know."""
    version = data.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise UsageError(f"{where} is not {what}: it has no schema_version", hint)
    if version > newest:
        raise UsageError(f"{where} was written by a newer mlopt (schema {version})", "upgrade mlopt")
