"""One table: the name of every sequence mixer, its class, and the keyword arguments that belong to the
name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from torchcram.baselines.mixture_of_depths import MixtureOfDepthsBlock
from torchcram.baselines.seqboat import SeqBoatBlock
from torchcram.baselines.ssm import SSMBlock
from torchcram.baselines.static_hybrid import StaticHybridBlock
from torchcram.baselines.static_router import StaticRouterBlock
from torchcram.baselines.transformer import TransformerBlock
from torchcram.memory.block import CRAMBlock
from torchcram.memory.observed import ObservedQualityBlock
from torchcram.memory.residual import ResidualBlock
from torchcram.strict import nearest_hint, require_choice

MIXERS: dict[str, tuple[type[ResidualBlock], dict[str, Any]]] = {
    "cram": (CRAMBlock, {}),
    # Always, everywhere, or never: no router.
    "transformer": (TransformerBlock, {}),
    "sliding_window": (TransformerBlock, {"window": 64}),
    "static_hybrid": (StaticHybridBlock, {}),
    "ssm": (SSMBlock, {}),
    # Routers that learn, and consolidate nothing.
    "seqboat": (SeqBoatBlock, {}),
    "mixture_of_depths": (MixtureOfDepthsBlock, {}),
    "static_router": (StaticRouterBlock, {}),
    "cram_no_consolidation": (CRAMBlock, {"semantic": "none", "surprise": False}),
    # Their quality needs the read that it would save: CRAM with that alone, and the paper to the letter.
    "cram_observed": (ObservedQualityBlock, {}),
    "cram_paper": (
        ObservedQualityBlock,
        {"working": "ct_ode", "semantic": "low_rank", "router": "gumbel3", "surprise": False},
    ),
}


def build_mixer(name: str, d_model: int, options: Mapping[str, Any], *, layer: int = 0) -> ResidualBlock:
    """Build one block.

    Args:
        name: in :data:`MIXERS`.
        d_model: width.
        options: keyword arguments of the mixer.
        layer: index of the block in its model, for mixers that are not the same in every layer.

    Raises:
        ValueError: for an unknown name or option, with the nearest valid one; for an option of the wrong type
            or beyond its range.
    """
    kind, preset = MIXERS[require_choice("mixer", name, MIXERS)]
    parameters = inspect.signature(kind).parameters
    valid = [key for key in parameters if key not in ("d_model", "layer")]
    place: dict[str, Any] = {"layer": layer} if "layer" in parameters else {}
    for key in options:
        if key not in valid:
            raise ValueError(f"unknown option {key!r} of mixer {name!r}: {nearest_hint(key, valid)}")
    types = get_type_hints(kind.__init__)
    return kind(
        d_model,
        **place,
        **{
            **preset,
            **{
                key: _typed(value, types[key], f"option {key!r} of mixer {name!r}")
                for key, value in options.items()
            },
        },
    )


def _typed(value: Any, annotation: Any, what: str) -> Any:
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{what}: {error.errors()[0]['msg']} (got {value!r})") from None
