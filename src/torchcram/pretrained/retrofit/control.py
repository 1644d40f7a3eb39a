"""What a retrofitted model may read, set for all of its layers at once; and what one pass has in common.

Not part of the weights, not saved: the price of a read is, with the settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from torchcram.pretrained.retrofit.alignment import Alignment, alignment_of
from torchcram.types import ReadBudget, Reads


@dataclass(kw_only=True)
class ReadControl:
    """Shared by the layers of a model.

    Attributes:
        reads: ``"all"``: every token reads whatever lies beyond the near tokens, the model is as it was;
            ``"routed"``: the router decides; ``"none"``: nothing is read.
        price: of a read, in nats of divergence; a higher one reads less.
        budget: a bound of the reads of each sequence in every layer, or None.
        mask: real tokens of the pass that is running, or None without padding.
    """

    reads: Reads = "routed"
    price: float = 0.0
    budget: ReadBudget | None = None
    mask: Bool[Tensor, "batch time"] | None = None
    _alignment: Alignment | None = None

    def begin(self, mask: Bool[Tensor, "batch time"] | None) -> None:
        """Begin a pass."""
        self.mask, self._alignment = mask, None

    def alignment(self, batch: int, time: int, device: torch.device) -> Alignment:
        """Return where the real tokens of the pass stand; worked out once for all layers."""
        known = self._alignment
        if known is None or known.count.shape != (batch,) or known.count.device != device:
            mask = None if self.mask is None else self.mask.to(device)
            known = self._alignment = alignment_of(mask, batch=batch, time=time, device=device)
        return known
