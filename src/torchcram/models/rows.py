"""From a padded or packed batch to rows without holes, and back.

Mixers take sequences that begin at the first step and may have padding at their end. A batch for ``generate``
is padded on the left, and a packed one holds several sequences in a row (its positions start anew). Both are
laid out as one row for each sequence, its real tokens side by side. So left-padded equals unpadded, and
nothing leaks between packed sequences, whatever the mixer. Legend: ``rows`` = sequences, ``steps`` of the
longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from torchcram.ops.routed_attention.packing import pack


def present_mask(
    attention_mask: Any, batch: int, time: int, past: int, *, device: torch.device
) -> Bool[Tensor, "batch time"] | None:
    """Return which of the present tokens are real, from a mask over all tokens so far or over the present
    ones.

    Raises:
        ValueError: if it is no mask of two dimensions, of another size, or elsewhere than the tokens.
    """
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() != 2:
        shape = (
            tuple(attention_mask.shape)
            if isinstance(attention_mask, Tensor)
            else type(attention_mask).__name__
        )
        raise ValueError(
            f"attention_mask is {shape}: give [batch, tokens], 1 on tokens and 0 on padding; "
            "packed sequences are told by position_ids"
        )
    if attention_mask.shape[0] != batch or attention_mask.shape[1] not in (time, past + time):
        raise ValueError(
            f"attention_mask is {tuple(attention_mask.shape)}: {batch} sequences of {past} + "
            f"{time} tokens need ({batch}, {past + time})"
        )
    if attention_mask.device != device:
        raise ValueError(
            f"attention_mask is on {attention_mask.device}, the tokens are on {device}: move it "
            f"with .to({str(device)!r})"
        )
    return attention_mask[:, -time:].bool()


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where each sequence's tokens stand in the batch.

    Attributes:
        batch, time: shape of the batch.
        index: place of each token in the flattened batch; None where the batch is as mixers want it.
        mask: which of them are real; None where all are.
        packed: whether a row of the batch holds several sequences.
    """

    batch: int
    time: int
    index: Int[Tensor, "rows steps"] | None = None
    mask: Bool[Tensor, "rows steps"] | None = None
    packed: bool = False

    @property
    def lengths(self) -> Int[Tensor, " rows"]:
        """How many tokens each row has, on the CPU."""
        return torch.full((self.batch,), self.time) if self.mask is None else self.mask.sum(1).cpu()

    def gathered(self, values: Shaped[Tensor, "batch time *rest"]) -> Shaped[Tensor, "rows steps *rest"]:
        """Lay values of the batch out in rows; on padding stands what stood somewhere."""
        return values if self.index is None else values.flatten(0, 1)[self.index]

    def put_back(
        self, values: Shaped[Tensor, "rows steps *rest"], *, blank: float = 0
    ) -> Shaped[Tensor, "batch time *rest"]:
        """Put values of rows back where their tokens stand; ``blank`` goes where no token is."""
        if self.index is None or self.mask is None:
            return values
        flat = values.new_full((self.batch * self.time + 1, *values.shape[2:]), blank)
        # Padding goes to a place of its own, which is dropped: no shape depends on how much of it there is.
        flat[torch.where(self.mask, self.index, self.batch * self.time)] = values
        return flat[:-1].unflatten(0, (self.batch, self.time))


def lay_out(
    batch: int,
    time: int,
    mask: Bool[Tensor, "batch time"] | None,
    positions: Int[Tensor, "batch time"] | None = None,
    *,
    fixed: bool = False,
) -> Rows:
    """Return the layout of a batch.

    Args:
        batch: its sequences.
        time: their tokens, padding included.
        mask: which tokens are real; None if all are.
        positions: position of each token in its sequence: where it does not follow its forerunner's, another
            sequence begins.
        fixed: whether no shape may depend on the data; then every row of the batch is one sequence.
    """
    if fixed:
        return Rows(batch=batch, time=time) if mask is None else _flush_left(mask, *_packed_to(mask))
    mask = None if mask is None or bool(mask.all()) else mask
    if positions is not None:
        real = torch.ones_like(positions, dtype=torch.bool) if mask is None else mask
        order, packed = pack(real)
        begins = _begins(positions.gather(1, order), packed)
        if bool(begins[:, 1:].any()):
            return _split(real, order, packed, begins)
    return Rows(batch=batch, time=time) if mask is None else _flush_left(mask, *pack(mask))


def _packed_to(mask: Tensor) -> tuple[Tensor, Tensor]:
    """As ``pack``, but as wide as the batch."""
    order = torch.sort((~mask).byte(), dim=1, stable=True).indices
    return order, mask.gather(1, order)


def _flush_left(mask: Tensor, order: Tensor, packed: Tensor) -> Rows:
    batch, time = mask.shape
    return Rows(
        batch=batch,
        time=time,
        index=order + time * torch.arange(batch, device=mask.device)[:, None],
        mask=packed,
    )


def _begins(positions: Tensor, packed: Tensor) -> Bool[Tensor, "batch packed"]:
    """Which real tokens, already side by side, begin a sequence."""
    begins = packed.clone()
    begins[:, 1:] &= positions[:, 1:] != positions[:, :-1] + 1
    return begins


def _split(real: Tensor, order: Tensor, packed: Tensor, begins: Tensor) -> Rows:
    """One row for each sequence, in the order of the batch."""
    batch, time = real.shape
    place = (order + time * torch.arange(batch, device=real.device)[:, None])[packed]
    sequence = begins[packed].cumsum(0) - 1
    lengths = torch.bincount(sequence)
    step = torch.arange(len(place), device=real.device) - (lengths.cumsum(0) - lengths)[sequence]
    index = place.new_zeros(len(lengths), int(lengths.max()))
    index[sequence, step] = place
    return Rows(
        batch=batch,
        time=time,
        index=index,
        mask=torch.arange(index.shape[1], device=real.device) < lengths[:, None],
        packed=True,
    )


def check_continuation(
    rows: Rows, before: Int[Tensor, " batch"], position_ids: Int[Tensor, "any time"] | None
) -> None:
    """Check that positions go on where a cache stops, after ``before`` tokens of each sequence.

    Raises:
        ValueError: naming the row, its position, and the one that would fit; for packed sequences, which have
            no cache.
    """
    if rows.packed:
        raise ValueError(
            f"position_ids hold {len(rows.lengths)} sequences in {rows.batch} rows: packed "
            "sequences have no cache, pass use_cache=False"
        )
    if position_ids is None:
        return
    first = rows.gathered(position_ids.expand(rows.batch, -1))[:, 0].cpu()
    wrong = (rows.lengths > 0) & (first != before)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        held = int(before[row])
        raise ValueError(
            f"position_ids of row {row} go on with {int(first[row])}, but the cache holds {held} "
            f"tokens of it: pass {held}"
        )
