"""How some tokens are taken out of a batch, and put back: gathered, or as a mask over all of them.

Gathering computes what was chosen and nothing else, but its shapes depend on the data. Whoever exports or
compiles a model whole needs shapes that do not: everything is computed, and what was not chosen is dropped.
Legend: ``tokens`` = the chosen ones, row by row, or all of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Gathered:
    """The chosen tokens alone."""

    dense = False

    def some(self, chosen: Bool[Tensor, "batch time"]) -> bool:
        """Whether any token was chosen; with gradients always, so that every process takes part."""
        return torch.is_grad_enabled() or bool(chosen.any())

    def take(
        self, values: Float[Tensor, "batch time d_model"], chosen: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "tokens d_model"]:
        """Return the chosen tokens."""
        return values[chosen]

    def put(self, values: Tensor, chosen: Bool[Tensor, "batch time"], blank: Tensor) -> Tensor:
        """Return ``blank`` with the values of the chosen tokens in their places."""
        return blank.masked_scatter(_over(chosen, blank), values)


class Everything:
    """All tokens; what was not chosen is dropped when it is put back."""

    dense = True

    def some(self, chosen: Bool[Tensor, "batch time"]) -> bool:
        """Whether there is something to compute: always."""
        del chosen
        return True

    def take(
        self, values: Float[Tensor, "batch time d_model"], chosen: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "tokens d_model"]:
        """Return all tokens."""
        del chosen
        return values.flatten(0, 1)

    def put(self, values: Tensor, chosen: Bool[Tensor, "batch time"], blank: Tensor) -> Tensor:
        """Return the values of the chosen tokens, and ``blank`` elsewhere."""
        return torch.where(_over(chosen, blank), values.unflatten(0, chosen.shape), blank)


# Both kinds have the same methods, and give the same result.
Selection = Gathered | Everything


def _over(chosen: Tensor, blank: Tensor) -> Tensor:
    """Give a choice of tokens as many dimensions as what it chooses."""
    return chosen.view(*chosen.shape, *[1] * (blank.dim() - 2))
