"""Streaming sums of a layer's lessons: all that the closed form of semantic memory needs. Their size depends
on the widths alone, never on the number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.retrofit.evidence import Standard
from torchcram.pretrained.retrofit.lessons import Lesson
from torchcram.pretrained.retrofit.processes import Processes

# A token counts by the mean square of what fell to its remote part, and this at least.
LEAST_WEIGHT = 1e-3


@dataclass(kw_only=True)
class FeatureMoments:
    """Sums for means and deviations of the features.

    Attributes:
        count: tokens.
        total: sum.
        squares: sum of squares.
    """

    count: int
    total: Float[Tensor, " features"]
    squares: Float[Tensor, " features"]

    def add(self, lesson: Lesson) -> None:
        """Take in some tokens."""
        features = lesson.evidence.features().double()
        self.count += len(features)
        self.total += features.sum(0)
        self.squares += features.square().sum(0)

    def share(self, processes: Processes) -> None:
        """Sum over all processes."""
        self.count = _all(self.count, processes)
        processes.add(self.total, self.squares)

    def settle(self, standard: Standard) -> None:
        """Give means and deviations to a standard."""
        mean = self.total / max(self.count, 1)
        variance = (self.squares / max(self.count, 1) - mean.square()).clamp(min=0)
        standard.set(mean.float(), variance.sqrt().float())


def no_feature_moments(features: int, *, device: torch.device) -> FeatureMoments:
    """Return the sums over no tokens."""
    none = torch.zeros(features, dtype=torch.float64, device=device)
    return FeatureMoments(count=0, total=none, squares=none.clone())


@dataclass(kw_only=True)
class RemoteMoments:
    """Weighted sums of standardised features x (with a one at the end) and targets y.

    The targets are value and average log-mass of all heads, then the mean value and the score of the gist:
    the gist's part is taken out of the target once it is known.

    Attributes:
        count: tokens.
        xx: sums of products of x with itself.
        xy: sums of products of x and y.
        gist: for each head, sums for its two regressions on the gist, see :meth:`add`.
    """

    count: int
    xx: Float[Tensor, "inputs inputs"]
    xy: Float[Tensor, "inputs outputs"]
    gist: Float[Tensor, "sums heads d_head"]

    def add(self, lesson: Lesson, standard: Standard) -> None:
        """Take in some tokens."""
        evidence = lesson.evidence
        x = standard(evidence.features())
        x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
        y = torch.cat(
            (
                lesson.remote.value.flatten(1).float(),
                lesson.average_mass,
                evidence.gist_value.flatten(1).float(),
                evidence.gist_score.float(),
            ),
            1,
        )
        share = lesson.share.float().square()
        weighted = x * (share.mean(1, keepdim=True) + LEAST_WEIGHT)
        self.count += len(x)
        self.xx.addmm_(weighted.T, x)
        self.xy.addmm_(weighted.T, y)
        self._add_gist(lesson, share + LEAST_WEIGHT)

    def _add_gist(self, lesson: Lesson, weight: Float[Tensor, "tokens heads"]) -> None:
        """Sums of weight, and of gist, target, gist squared and gist times target, for values (channel by
        channel) and for log-masses (in the first channel of the last five).
        """
        pairs = (
            (lesson.evidence.gist_value.float(), lesson.remote.value.float()),
            (lesson.evidence.gist_score.float()[..., None], lesson.average_mass[..., None]),
        )
        for start, (gist, target) in zip((0, 5), pairs, strict=True):
            products = (torch.ones_like(gist), gist, target, gist * gist, gist * target)
            for place, product in enumerate(products, start):
                self.gist[place, :, : gist.shape[-1]] += (product * weight[..., None]).sum(0)

    def share(self, processes: Processes) -> None:
        """Sum over all processes."""
        self.count = _all(self.count, processes)
        processes.add(self.xx, self.xy, self.gist)

    def gist_factors(self) -> tuple[Float[Tensor, " heads"], Float[Tensor, " heads"]]:
        """Return share and slope: the regressions of value and average log-mass on the gist, head by head."""
        return _slope(self.gist[:5].double()), _slope(self.gist[5:, :, :1].double())

    def finite(self) -> bool:
        """Whether no value overflowed so far."""
        return bool(torch.isfinite(self.xx).all() and torch.isfinite(self.xy).all())


def _all(count: int, processes: Processes) -> int:
    total = torch.tensor(count)
    processes.add(total)
    return int(total)


def _slope(sums: Float[Tensor, "5 heads channels"]) -> Float[Tensor, " heads"]:
    """Return one slope a head, over all channels around their means."""
    weight, gist, target, squares, products = sums
    weight = weight.clamp(min=1e-12)
    spread = (squares - gist.square() / weight).sum(-1)
    common = (products - gist * target / weight).sum(-1)
    return torch.where(spread > 1e-9, common / spread.clamp(min=1e-9), 0.0).float()


def no_remote_moments(features: int, *, heads: int, head_size: int, device: torch.device) -> RemoteMoments:
    """Return the sums over no tokens."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, device=device)

    return RemoteMoments(
        count=0,
        xx=zeros(features + 1, features + 1),
        xy=zeros(features + 1, 2 * heads * (head_size + 1)),
        gist=zeros(10, heads, head_size),
    )
