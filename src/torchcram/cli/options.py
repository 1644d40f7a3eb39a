"""What several commands take and give: changes of a configuration, a file for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from torchcram.strict import StrictConfig

ConfigT = TypeVar("ConfigT", bound=StrictConfig)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``a.b=value``; the value is read as YAML (so numbers, lists, true, null work).

    Raises:
        ValueError: if there is no equals sign, or the value is not YAML.
    """
    from torchcram.strict_yaml import load_yaml

    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ValueError(f"--set {text!r} must look like a.b=value")
    try:
        return path, load_yaml(value)
    except ValueError as error:
        raise ValueError(
            f"--set {text!r}: {value!r} is neither a number, nor a word, nor a list: {error} (quote what "
            "holds brackets or colons)"
        ) from None


def changed(config: ConfigT, assignments: Sequence[str] | None) -> ConfigT:
    """Return a configuration with some assignments ``a.b=value`` carried out.

    Raises:
        ValueError: if one of them names no field, or does not fit it.
    """
    for assignment in assignments or ():
        config = config.updated(*parse_assignment(assignment))
    return config


def show_json(content: Any, file: Path | None) -> None:
    """Print content as JSON, and write it to a file, if there is one."""
    import json

    text = json.dumps(content, indent=1)
    if file is not None:
        file.write_text(text + "\n", encoding="utf-8")
    typer.echo(text)
