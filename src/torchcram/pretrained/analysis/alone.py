"""Every block alone: how the loss and the predictions move when it is replaced or dropped, on select text.

Layers are ranked by how far the model's predictions move: the divergence is far less noisy than the change of
the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from torchcram.pretrained.analysis.layerwise import Layerwise, token_losses
from torchcram.pretrained.analysis.prefixes import Prefixes, Stand, dropping, replacing
from torchcram.pretrained.analysis.state_probe import StateProbe
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.sites import AttentionSite

# Tokens whose divergence is computed at once.
CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What happens when one block alone is replaced or dropped, on select text.

    Attributes:
        loss: change of the loss.
        divergence: of the predictions, from those of the untouched model, in nats.
    """

    loss: float
    divergence: float


@dataclass(frozen=True, kw_only=True)
class EachAlone:
    """What happens to every block."""

    replaced: list[Alone]
    dropped: list[Alone]


def ranking(blocks: Sequence[Alone]) -> list[int]:
    """Return the numbers of the blocks; those come first that move the predictions least."""
    return sorted(range(len(blocks)), key=lambda number: blocks[number].divergence)


def best_sets(blocks: Sequence[Alone], sizes: Sequence[int]) -> dict[int, list[int]]:
    """Return the first blocks of the ranking for each size that there are enough of."""
    order = ranking(blocks)
    return {size: order[:size] for size in sizes if size <= len(order)}


@torch.no_grad()
def each_alone(
    layerwise: Layerwise,
    sites: Sequence[AttentionSite],
    windows: Sequence[Tensor],
    stands: Sequence[Stand],
    *,
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[Alone]:
    """Measure every block alone with its stand-in."""
    changes, moved, count = torch.zeros(len(sites)), torch.zeros(len(sites)), 0
    for ids in windows:
        prefixes = Prefixes(layerwise, sites, ids)
        base = prefixes.logits({})
        loss = token_losses(base, ids).sum()
        for number, stand in enumerate(stands):
            logits = prefixes.logits({number: stand})
            changes[number] += float(token_losses(logits, ids).sum() - loss)
            moved[number] += divergence(base, logits)
        count += len(ids) - 1
        advance(len(ids))
    return [
        Alone(loss=float(change) / count, divergence=float(move) / count)
        for change, move in zip(changes, moved, strict=True)
    ]


def divergence(base: Float[Tensor, "tokens vocabulary"], logits: Float[Tensor, "tokens vocabulary"]) -> float:
    """Return the divergence of predictions from the untouched model's, summed over tokens."""
    parts = zip(base.split(CHUNK), logits.split(CHUNK), strict=True)
    return sum(
        float(
            kl_div(
                log_softmax(new.float(), -1), log_softmax(old.float(), -1), log_target=True, reduction="sum"
            )
        )
        for old, new in parts
    )


def all_alone(study: Study, layerwise: Layerwise, probes: Sequence[StateProbe]) -> EachAlone:
    """Replace every block of a study by its probe, and drop it."""
    windows = study.ids("select", study.settings.rank_tokens)
    stands: dict[str, list[Stand]] = {
        "replaced": [replacing(probe) for probe in probes],
        "dropped": [dropping] * len(probes),
    }
    measured = {}
    for what, stand in stands.items():
        advance = study.progress.stage(f"each layer {what} alone", total=sum(map(len, windows)))
        measured[what] = each_alone(layerwise, study.sites, windows, stand, advance=advance)
    return EachAlone(**measured)
