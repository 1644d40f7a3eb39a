"""One table: the name of every sequence mixer, its class, and the keyword arguments that belong to the name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from torchcram.baselines.ssm import SSMBlock
from torchcram.baselines.transformer import TransformerBlock
from torchcram.memory.block import CRAMBlock
from torchcram.strict import nearest_hint, require_choice

Mixer = CRAMBlock | TransformerBlock | SSMBlock

MIXERS: dict[str, tuple[type[Mixer], dict[str, Any]]] = {
    "cram": (CRAMBlock, {}),
    "transformer": (TransformerBlock, {}),
    "ssm": (SSMBlock, {}),
}


def build_mixer(name: str, d_model: int, options: Mapping[str, Any]) -> Mixer:
    """Build one block.

    Raises:
        ValueError: for an unknown name or option, with the nearest valid one; for an option of the wrong type or beyond its range.
    """
    kind, preset = MIXERS[require_choice("mixer", name, MIXERS)]
    valid = [key for key in inspect.signature(kind).parameters if key != "d_model"]
    for key in options:
        if key not in valid:
            raise ValueError(f"unknown option {key!r} of mixer {name!r}: {nearest_hint(key, valid)}")
    types = get_type_hints(kind.__init__)
    return kind(d_model, **{**preset, **{key: _typed(value, types[key], f"option {key!r} of mixer {name!r}") for key, value in options.items()}})


def _typed(value: Any, annotation: Any, what: str) -> Any:
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{what}: {error.errors()[0]['msg']} (got {value!r})") from None
