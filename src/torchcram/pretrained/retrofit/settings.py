"""What a retrofit is made of: saved with the model, and enough to build it again."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from torchcram.pretrained.retrofit.semantic import NARROWER, SLOTS, Kind
from torchcram.strict import StrictConfig

FORMAT = 2
# Entries that each head keeps behind its window, as measured on SmolLM2 (experiments/14_retrofit_smollm2).
KEPT = 64


class RetrofitSettings(StrictConfig):
    """Architecture and price of a retrofit.

    Attributes:
        sinks: how many of the first tokens are near to all.
        window: how many of the last tokens are near, the token itself among them.
        kept: how many of the entries that left the window each head of keys keeps at hand: the most notable
            ones. Layers with a window of their own keep none.
        kind: of semantic memory: linear, low_rank or slots.
        rank: of low_rank; the width over 16 if None.
        slots: of each head.
        unread: layers that never read, and keep sinks and window alone in their cache.
        untouched: layers that stay as they are.
        price: of a read, in nats of divergence.
        format: of the saved adapter.
    """

    sinks: int = Field(4, ge=0)
    window: int = Field(64, ge=1)
    kept: int = Field(KEPT, ge=0)
    kind: Kind = "linear"
    rank: int | None = Field(None, ge=1)
    slots: int = Field(SLOTS, ge=1)
    unread: tuple[int, ...] = ()
    untouched: tuple[int, ...] = ()
    price: float = Field(0.0, ge=0)
    format: int = FORMAT

    @model_validator(mode="before")
    @classmethod
    def _from_earlier(cls, given: Any) -> Any:
        """Format 1 knew of no kept entries; all else is the same."""
        if isinstance(given, dict) and given.get("format") == 1:
            return {"kept": 0, **given, "format": FORMAT}
        return given

    @model_validator(mode="after")
    def _check(self) -> RetrofitSettings:
        if self.format != FORMAT:
            raise ValueError(
                f"this retrofit was saved in format {self.format}, and this version of torchcram reads "
                f"{FORMAT}: make it again, or install the version that made it"
            )
        if both := sorted(set(self.unread) & set(self.untouched)):
            raise ValueError(f"layers {both} cannot be untouched and never read: an untouched layer reads")
        return self

    @property
    def held(self) -> int:
        """Tokens that a head has at hand without a read, however long the text is."""
        return self.sinks + self.window + self.kept

    def rank_for(self, width: int) -> int:
        """Return the rank of low_rank in a model of that width."""
        return self.rank or max(width // NARROWER, 1)
