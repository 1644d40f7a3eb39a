"""Results as plain data and tensors, for a file, and back.

A dataclass is a dictionary of its fields. The type hints of its fields say how to make it again, so that a
result that is kept needs no second description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(content: Any) -> Any:
    """Return dataclasses as dictionaries of their fields, also within lists, tuples and dictionaries; all
    else stays as it is.
    """
    if is_dataclass(content):
        return {field.name: to_plain(getattr(content, field.name)) for field in fields(content)}
    if isinstance(content, Mapping):
        return {key: to_plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(to_plain, content))
    return content


def from_plain(kind: Callable[..., T], plain: Any) -> T:
    """Return what :func:`to_plain` was given.

    Args:
        kind: its type: a dataclass, or a list, tuple or dictionary of such. What any other type describes is
            returned as it is.
        plain: what :func:`to_plain` returned.

    Raises:
        ValueError: if a dataclass has other fields than the plain data.
    """
    made: Any = plain
    container, of = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        made = kind(**_fields_from(kind, plain))
    elif container in (list, tuple):
        made = container(from_plain(of[0], value) for value in plain)
    elif container is dict:
        made = {key: from_plain(of[1], value) for key, value in plain.items()}
    return made


def _fields_from(kind: Any, plain: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    if not isinstance(plain, Mapping) or set(plain) != set(names):
        raise ValueError(f"{kind.__name__} has the fields {', '.join(names)}")
    return {name: from_plain(hints[name], plain[name]) for name in names}
