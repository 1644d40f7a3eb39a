"""One table: the name of every sequence mixer, its class, and the keyword arguments that belong to the name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from torchcram.baselines.ssm import SSMBlock
from torchcram.baselines.transformer import TransformerBlock
from torchcram.memory.block import CRAMBlock
from torchcram.strict import nearest_hint, require_choice

MIXERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "cram": (CRAMBlock, {}),
    "transformer": (TransformerBlock, {}),
    "ssm": (SSMBlock, {}),
}


def build_mixer(name: str, d_model: int, options: Mapping[str, Any]) -> nn.Module:
    """Build one block.

    Raises:
        ValueError: for an unknown name or option, with the nearest valid one.
    """
    kind, preset = MIXERS[require_choice("mixer", name, MIXERS)]
    valid = [key for key in inspect.signature(kind).parameters if key != "d_model"]
    for key in options:
        if key not in valid:
            raise ValueError(f"unknown option {key!r} of mixer {name!r}: {nearest_hint(key, valid)}")
    return kind(d_model, **{**preset, **options})
