"""Controls of a probe: how much is predicted by the token's identity, the token before it, the position, or
by nothing at all.

A class predicts the mean output of its tokens, shrunk towards the mean of all by ``strength`` imaginary
tokens. Sums suffice for fitting and for the error on held-out text alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# The most frequent tokens have a class each; all the others share one, so that memory stays bounded.
TOKEN_CLASSES = 256
POSITION_CLASSES = 24
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class Classes:
    """A class for every token of the vocabulary. ``of_token`` has the size of the vocabulary."""

    of_token: Int[Tensor, " vocabulary"]
    count: int

    def of(self, ids: Int[Tensor, " tokens"]) -> dict[str, Int[Tensor, " tokens"]]:
        """Return, for each control, the class of each token of a window."""
        token = self.of_token[ids]
        # What has no token before it shares the class of the rare ones.
        previous = torch.cat((torch.full((1,), self.count - 1, device=ids.device), token[:-1]))
        return {
            "token": token,
            "previous": previous,
            "position": position_class(torch.arange(len(ids), device=ids.device)),
        }

    def sizes(self) -> dict[str, int]:
        """Return the number of classes of each control."""
        return {"token": self.count, "previous": self.count, "position": POSITION_CLASSES}


def position_class(position: Int[Tensor, " tokens"]) -> Int[Tensor, " tokens"]:
    """Return classes that are single positions first and ever wider ranges then."""
    wide = 4 + (4 * torch.log2((position.double() + 1) / 4)).floor().clamp(min=0).long() // 2
    return torch.where(position < 4, position, wide).clamp(max=POSITION_CLASSES - 1)


def frequent_tokens(windows: Sequence[Int[Tensor, " _"]], *, vocabulary: int) -> Classes:
    """Return classes by the counts of the given text."""
    counts = torch.bincount(torch.cat(list(windows)), minlength=vocabulary)
    common = counts.argsort(descending=True, stable=True)[: min(TOKEN_CLASSES, vocabulary)]
    common = common[counts[common] > 1]
    of_token = torch.full((vocabulary,), len(common))
    of_token[common] = torch.arange(len(common))
    return Classes(of_token=of_token, count=len(common) + 1)


@dataclass(kw_only=True)
class ClassSums:
    """Number of tokens and sum of their outputs for each class."""

    counts: Float[Tensor, " classes"]
    sums: Float[Tensor, "classes outputs"]

    def add(self, classes: Int[Tensor, " tokens"], y: Float[Tensor, "tokens outputs"]) -> None:
        """Take in some tokens."""
        self.counts.index_add_(0, classes, torch.ones_like(classes, dtype=self.counts.dtype))
        self.sums.index_add_(0, classes, y.to(self.sums.dtype))

    def means(self, *, strength: float) -> Float[Tensor, "classes outputs"]:
        """Return the prediction of each class."""
        overall = self.sums.sum(0) / self.counts.sum()
        return (self.sums + strength * overall) / (self.counts + strength)[:, None]

    def mapped(self, weight: Float[Tensor, "outputs width"]) -> ClassSums:
        """Return the sums of ``y @ weight``."""
        return ClassSums(counts=self.counts.double(), sums=self.sums.double() @ weight)


def no_class_sums(classes: int, outputs: int, *, device: torch.device | None = None) -> ClassSums:
    """Return the sums over no tokens."""
    return ClassSums(
        counts=torch.zeros(classes, device=device), sums=torch.zeros(classes, outputs, device=device)
    )


def class_error(fit: ClassSums, held: ClassSums, *, strength: float, squares: float) -> float:
    """Return the squared error per token of predicting held-out outputs, whose mean squared length is
    ``squares``, by class means.
    """
    means = fit.means(strength=strength)
    gain = (2 * means * held.sums).sum() - (held.counts * means.square().sum(1)).sum()
    return squares - float(gain / held.counts.sum())
