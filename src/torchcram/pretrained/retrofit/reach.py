"""What is near to a token, and what is remote: the first few tokens and the last few are a buffer of fixed
size, everything between them is what a read costs.

Tokens are counted by *rank*: how many tokens of their sequence came before them, padding left out. So nothing
depends on where padding stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The near tokens of every token: of those that the layer looks at, the sinks and the window.

    Attributes:
        sinks: how many of the first tokens are near to all (Xiao et al. 2023, arXiv 2309.17453).
        window: how many of the last tokens, the token itself among them.
        own: the layer's own sliding window, as it was trained; None if it looks at everything before.
        kept: how many of the entries that left the window stay at hand, see
            :mod:`torchcram.pretrained.retrofit.kept`; none where the layer has a window of its own.
    """

    sinks: int
    window: int
    own: int | None = None
    kept: int = 0

    def __post_init__(self) -> None:
        if self.sinks < 0 or self.window < 1:
            raise ValueError(
                f"sinks {self.sinks} must be at least 0, and window {self.window} at least 1: "
                "a token is near to itself"
            )
        if self.kept < 0 or (self.kept and self.own is not None):
            raise ValueError(
                f"kept {self.kept} must be at least 0, and 0 for a layer with a window of its own, which "
                "looks at no entry for good"
            )

    @property
    def held(self) -> int:
        """Entries that are held however long the text is."""
        return self.sinks + self.window + self.kept

    @property
    def covers_all(self) -> bool:
        """Whether nothing is ever remote: the layer's own window is no longer than the near one."""
        return self.own is not None and self.own <= self.window

    def seen(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return whether the untouched layer looks from one rank at another."""
        seen = key <= query
        return seen if self.own is None else seen & (query - key < self.own)

    def near(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return which of the seen ranks are near, kept entries left out."""
        return self.seen(query, key) & ((key < self.sinks) | (query - key < self.window))

    def remote(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Bool[Tensor, "..."]:
        """Return which of the seen ranks are remote, kept entries among them."""
        return self.seen(query, key) & (key >= self.sinks) & (query - key >= self.window)

    def remote_count(self, query: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Return how many tokens are remote to a rank, kept entries left out."""
        before = query - self.window + 1
        first = self.sinks if self.own is None else (query - self.own + 1).clamp(min=self.sinks)
        return (before - first - self.kept).clamp(min=0)
