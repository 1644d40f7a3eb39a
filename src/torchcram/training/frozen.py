"""Parts of a model that keep what another run has taught them, while a new head learns (transfer).

``trunk`` is everything but the heads and the two others: embeddings, working and episodic memory,
feed-forward networks, norms. ``semantic`` is what has been consolidated, with the surprise trace that watches
it. ``router`` decides: need and familiarity. The heads are never frozen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from torchcram.models.sequence import SequenceModel

Part = Literal["trunk", "semantic", "router"]
HEADS = "heads."
MODULES: dict[str, Part] = {
    "semantic": "semantic",
    "surprise": "semantic",
    "router": "router",
    "familiarity": "router",
}


def part_of(name: str) -> Part | None:
    """Return the part that a parameter of a :class:`SequenceModel` belongs to, by its name; None for the
    heads.
    """
    if name.startswith(HEADS):
        return None
    words = name.split(".")
    return MODULES.get(words[2], "trunk") if words[0] == "blocks" else "trunk"


def freeze(model: SequenceModel, parts: Collection[Part]) -> None:
    """Take the gradients of some parts away: call before the optimizer is built."""
    for name, parameter in model.named_parameters():
        if part_of(name) in parts:
            parameter.requires_grad_(False)
