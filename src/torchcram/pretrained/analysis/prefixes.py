"""A model with outputs of some attention blocks replaced or dropped, on one window: layers before the first
replaced one are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.analysis.layerwise import Calls, Layerwise, token_losses
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import AttentionSite

# From the input and the output of a block to what takes the output's place.
Stand = Callable[[Tensor, Tensor], Tensor]


def replacing(probe: Callable[[Tensor], Tensor]) -> Stand:
    """Return a stand-in that gives the prediction of a probe."""
    return lambda x, output: probe(x).to(output.dtype)


def dropping(x: Tensor, output: Tensor) -> Tensor:
    """Stand in with nothing."""
    return torch.zeros_like(output)


class Prefixes:
    """Variants of a model on one window; the hidden states before each layer of the untouched model are
    computed once.

    Args:
        layerwise: the model.
        sites: all of its attention blocks.
        ids: tokens of the window.
    """

    def __init__(self, layerwise: Layerwise, sites: Sequence[AttentionSite], ids: Tensor):
        self.layerwise, self.sites = layerwise, sites
        self.calls: Calls = layerwise.embed(ids)
        self.hidden = [self.calls.embedded]
        for layer in range(len(layerwise.layers)):
            self.hidden.append(layerwise.run(self.hidden[-1], self.calls, start=layer, end=layer + 1))

    def logits(self, stands: Mapping[int, Stand]) -> Float[Tensor, "tokens vocabulary"]:
        """Return the logits with some outputs replaced; without any, those of the untouched model."""
        if not stands:
            return self.layerwise.logits(self.hidden[-1], self.calls)
        start = min(self.layerwise.layer_of[number] for number in stands)
        chosen = sorted(stands)
        with capture(
            [self.sites[number] for number in chosen],
            replace=lambda place, x, output: stands[chosen[place]](x, output),
        ):
            return self.layerwise.logits(
                self.layerwise.run(self.hidden[start], self.calls, start=start), self.calls
            )

    def losses(self, stands: Mapping[int, Stand]) -> Float[Tensor, " predictions"]:
        """Return the loss of each next token."""
        return token_losses(self.logits(stands), self.calls.ids)
