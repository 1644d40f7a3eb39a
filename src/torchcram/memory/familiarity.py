"""The familiarity estimator: predicts, without reading, how well semantic memory would stand in for a read.

It closes the paper's hole: the consolidation quality ``q = exp(-error / sigma^2)`` needs the retrieval, that
is, the very read that the router wants to skip. The estimator sees the token's state, the semantic answer and
how well it matched; it learns on tokens that were read.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcram.memory.semantic import SemanticAnswer


class FamiliarityEstimator(nn.Module):
    """``logit(q) = W2 silu(W1 [h, f_sem(h), evidence])``: the expected quality of a semantic answer.

    Args:
        d_model: width.
        evidence_size: numbers of evidence that the semantic memory gives.
        hidden: units of the hidden layer.
    """

    def __init__(self, d_model: int, *, evidence_size: int, hidden: int = 32):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2 * d_model + evidence_size, hidden), nn.SiLU(), last := nn.Linear(hidden, 1)
        )
        nn.init.constant_(last.bias, -2.0)

    def forward(
        self, hidden_states: Float[Tensor, "tokens d_model"], answer: SemanticAnswer
    ) -> Float[Tensor, " tokens"]:
        """Return the logit of the expected quality. No gradient reaches what it looks at."""
        seen = torch.cat([hidden_states, answer.value, answer.evidence], -1).detach()
        return self.net(seen)[..., 0].float() if seen.dtype != torch.float64 else self.net(seen)[..., 0]
