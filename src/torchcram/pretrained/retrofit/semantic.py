"""Semantic memory of a pretrained layer: the remote part of attention, predicted from what is at hand.

Every kind predicts ``(log-mass, value)`` for each head, as what the gist of the remote tokens says, and what
a kind of memory adds. The log-mass is that of an *average* remote token, to
which the logarithm of their number is added: what is learned at one length holds at others, and fades with
what is remote.

- ``linear``: one linear map of the features, fitted in closed form.
- ``low_rank``: the same through a bottleneck of width / 16, the rank of the paper's adapter.
- ``slots``: learned keys and values, read by the query before rotation.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcram.pretrained.retrofit.evidence import Evidence, Standard, feature_count
from torchcram.pretrained.retrofit.parts import Part

Kind = Literal["linear", "low_rank", "slots"]
KINDS: tuple[Kind, ...] = ("linear", "low_rank", "slots")
# The paper's rank is the width over this.
NARROWER = 16
SLOTS = 64


class SemanticMemory(nn.Module):
    """What all kinds have in common.

    Args:
        width: of the block's input.
        heads: of its queries.
        head_size: of one.
    """

    def __init__(self, *, width: int, heads: int, head_size: int):
        super().__init__()
        self.heads, self.head_size = heads, head_size
        # How much of each head's remote value is the mean one, and how steeply its log-mass follows the score
        # of the mean key.
        self.gist_share = nn.Parameter(torch.zeros(heads))
        self.gist_slope = nn.Parameter(torch.zeros(heads))
        self.features = feature_count(width=width, heads=heads, head_size=head_size)

    def predict(self, evidence: Evidence) -> Part:
        """Return the value, and the log-mass of an average remote token. To be defined by each kind."""
        raise NotImplementedError

    def forward(self, evidence: Evidence) -> Part:
        """Return the predicted remote part; steps without remote tokens have no mass."""
        part, gist = self.predict(evidence), self.from_gist(evidence)
        return Part(
            value=part.value + gist.value,
            log_mass=part.log_mass + gist.log_mass + evidence.remote.log()[..., None],
        )

    def from_gist(self, evidence: Evidence) -> Part:
        """Return what the gist says of the value, and of the log-mass of an average remote token."""
        return Part(
            value=evidence.gist_value.float() * self.gist_share[:, None],
            log_mass=evidence.gist_score.float() * self.gist_slope,
        )

    def split(self, predicted: Float[Tensor, "*steps outputs"]) -> Part:
        """Return the outputs of all heads as values and log-masses."""
        values, masses = predicted.split((self.heads * self.head_size, self.heads), -1)
        return Part(value=values.unflatten(-1, (self.heads, self.head_size)), log_mass=masses)


class LinearRemote(SemanticMemory):
    """``features @ weight + bias``: ridge regression, see :mod:`torchcram.pretrained.retrofit.closed_form`.

    The new-born memory predicts nothing: a log-mass of :data:`NOTHING`.
    """

    def __init__(self, *, width: int, heads: int, head_size: int):
        super().__init__(width=width, heads=heads, head_size=head_size)
        self.standard = Standard(self.features)
        self.map = _unborn(nn.Linear(self.features, heads * (head_size + 1)), heads)

    def predict(self, evidence: Evidence) -> Part:
        """Return the prediction for each step."""
        return self.split(self.map(self.standard(evidence.features()).to(self.map.weight.dtype)).float())


class LowRankRemote(SemanticMemory):
    """The same through a bottleneck.

    Args:
        rank: of the map; the width over :data:`NARROWER` if None.
    """

    def __init__(self, *, width: int, heads: int, head_size: int, rank: int | None = None):
        super().__init__(width=width, heads=heads, head_size=head_size)
        self.standard = Standard(self.features)
        self.down = nn.Linear(self.features, rank or max(width // NARROWER, 1), bias=False)
        self.up = _unborn(nn.Linear(self.down.out_features, heads * (head_size + 1)), heads)

    def predict(self, evidence: Evidence) -> Part:
        """Return the prediction for each step."""
        return self.split(
            self.up(self.down(self.standard(evidence.features()).to(self.down.weight.dtype))).float()
        )


class SlotRemote(SemanticMemory):
    """Learned keys and values of each head, read by softmax as the layer reads its own, by the query before
    rotation.

    Args:
        slots: of each head.
    """

    def __init__(self, *, width: int, heads: int, head_size: int, slots: int = SLOTS):
        super().__init__(width=width, heads=heads, head_size=head_size)
        self.key = nn.Parameter(torch.randn(heads, slots, head_size) * head_size**-0.5)
        self.value = nn.Parameter(torch.zeros(heads, slots, head_size))
        self.mass = nn.Parameter(torch.full((heads, slots), NOTHING))

    def predict(self, evidence: Evidence) -> Part:
        """Return the prediction for each step."""
        scores = torch.einsum("...hd,hsd->...hs", evidence.address.to(self.key.dtype), self.key) + self.mass
        value = torch.einsum("...hs,hsd->...hd", scores.softmax(-1), self.value)
        return Part(value=value, log_mass=scores.logsumexp(-1).float())


# Log-mass of a memory that knows nothing yet: all that is remote together stays below any near token.
NOTHING = -30.0
CLASSES: dict[Kind, type[SemanticMemory]] = {
    "linear": LinearRemote,
    "low_rank": LowRankRemote,
    "slots": SlotRemote,
}


@torch.no_grad()
def _unborn(last: nn.Linear, heads: int) -> nn.Linear:
    """Let a last map predict zero values of no mass."""
    last.weight.zero_()
    last.bias.zero_()
    last.bias[-heads:] = NOTHING
    return last
