"""YAML that says what it seems to say: of YAML 1.1, which most readers speak, the traps are left out.

| written | YAML 1.1 | here, as in YAML 1.2 |
|---|---|---|
| ``010`` | 8 | 10 |
| ``1:10`` | 70 | the word ``1:10`` |
| ``1e-3`` | a word | 0.001 |
| ``2026-01-01`` | a date | a word |
| one key twice | the last one counts | an error |

``yes``, ``no``, ``on`` and ``off`` are true and false, as in YAML 1.1.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
MEANINGS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
    "int": r"[-+]?[0-9][0-9_]*",
    "float": r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "merge": r"<<",
}

# By the first character of a word; None stands for any.
RESOLVERS: dict[Any, Any] = {
    None: [(TAG + name, re.compile(rf"(?:{pattern})\Z")) for name, pattern in MEANINGS.items()]
}


def load_yaml(text: str) -> Any:
    """Return what a YAML text means.

    Raises:
        ValueError: if it is no YAML, or has a key twice; one line that says where.
    """
    try:
        return yaml.load(text, Loader=StrictLoader)
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f" (line {error.problem_mark.line + 1})"
        raise ValueError(f"{error.problem or error.context}{where}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """Return a whole number; zeros before it do not count."""
    return int(str(loader.construct_scalar(node)).replace("_", ""))


CONSTRUCTORS: dict[Any, Any] = {**yaml.SafeLoader.yaml_constructors, TAG + "int": whole_number}


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the meanings above."""

    yaml_implicit_resolvers = RESOLVERS
    yaml_constructors = CONSTRUCTORS

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the node of a mapping.

        Raises:
            ConstructorError: if a key stands in it twice.
        """
        mapping = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in mapping.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(str(key.value))
        return mapping
