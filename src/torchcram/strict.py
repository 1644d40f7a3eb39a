"""Strict configuration: frozen, keyword-only pydantic models that answer an unknown key with the nearest
valid one.

Every configuration of the project derives from :class:`StrictConfig`. It is *not* where any setting lives:
each setting stands beside the code that it configures.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

# Marks a field that came after runs had been named: while it holds its default, it does not count in the
# digest, so those runs keep their names.
LATER: dict[str, Any] = {"later": True}

# Not typing.Self: the checker that enforces shapes in the tests decorates methods one by one, and does not
# know their class.
ConfigT = TypeVar("ConfigT", bound="StrictConfig")


def nearest_hint(name: str, valid: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the valid name nearest to ``name``, else a list of all valid
    names.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(names)}"


def require_choice(kind: str, value: str, valid: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``valid``.

    Raises:
        ValueError: with the offending value and the nearest valid one.
    """
    names = list(valid)
    if value not in names:
        raise ValueError(f"unknown {kind} {value!r}: {nearest_hint(value, names)}")
    return value


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra."""


def optional(module: str, *, extra: str) -> Any:
    """Return a module of an optional dependency.

    Raises:
        MissingExtraError: naming the extra that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"this needs {module.split('.')[0]}, which is not installed: pip install 'torchcram[{extra}]'"
        ) from None


def require_positive(**numbers: float) -> None:
    """Raise ValueError, with its name, for a number that is not above zero."""
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name} {value} must be above 0")


class StrictConfig(BaseModel):
    """A frozen configuration whose unknown keys, wrong types and impossible values are errors that name
    the way out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_unfit_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(
                        f"unknown key {key!r} in {cls.__name__}: {nearest_hint(str(key), cls.model_fields)}"
                    )
            _refuse_truth(cls, data)
        return data

    @classmethod
    def parse(cls: type[ConfigT], data: Mapping[Any, Any]) -> ConfigT:
        """Build from plain data.

        Raises:
            ValueError: one line per problem, each with the dotted path of the field.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ValueError(_readable(error)) from None

    def updated(self: ConfigT, path: str, value: Any) -> ConfigT:
        """Return a copy with the field at the dotted ``path`` set to ``value`` (validated like any other
        input).

        Raises:
            ValueError: if the path names no field, or the value does not fit it.
        """
        tree = self.model_dump(mode="json")
        node: Any = tree
        *parents, leaf = path.split(".")
        for name in parents:
            if name not in node:
                raise ValueError(f"unknown key {name!r} in {path!r}: {nearest_hint(name, node)}")
            node = node[name]
            if not isinstance(node, dict):
                raise ValueError(
                    f"{path!r} does not name a field: {name!r} holds the value {node!r}, not further fields"
                )
        node[leaf] = value
        return type(self).parse(tree)

    def digest(self) -> str:
        """Return 12 hexadecimal digits that identify this configuration."""
        return hashlib.sha256(
            json.dumps(_counted(self, self.model_dump(mode="json")), sort_keys=True).encode()
        ).hexdigest()[:12]


def _refuse_truth(model: type[BaseModel], data: Mapping[Any, Any]) -> None:
    """Raise ValueError for a field that is no truth value and was given one: pydantic takes true for 1."""
    for name, value in data.items():
        if _misplaced(value, model.model_fields[name].annotation):
            raise ValueError(f"{name} is neither true nor false (got {value!r})")


def _misplaced(value: Any, annotation: Any) -> bool:
    """Whether a truth value stands, also in lists and mappings, where the annotation has none."""
    if isinstance(value, bool):
        return not _takes_truth(annotation)
    if isinstance(value, list | tuple):
        return any(_misplaced(item, annotation) for item in value)
    # The fields of a configuration look after themselves.
    is_mapping = isinstance(value, Mapping) and get_origin(annotation) is dict
    return is_mapping and any(_misplaced(item, get_args(annotation)[1]) for item in value.values())


def _takes_truth(annotation: Any) -> bool:
    return (
        annotation in (bool, Any)
        or isinstance(annotation, bool)
        or any(_takes_truth(part) for part in get_args(annotation))
    )


def _counted(config: BaseModel, tree: dict[str, Any]) -> dict[str, Any]:
    """Return the tree of a configuration without the fields marked :data:`LATER` that hold their defaults."""
    kept = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if field.json_schema_extra != LATER or value != field.default:
            kept[name] = _counted(value, tree[name]) if isinstance(value, BaseModel) else tree[name]
    return kept


def _readable(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(item["input"], Mapping | BaseModel) else f" (got {item['input']!r})"
        lines.append(f"{where + ': ' if where else ''}{message}{shown}")
    return "\n".join(lines)
