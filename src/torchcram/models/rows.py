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


def present_mask(attention_mask: Any, tokens: Tensor, *, past: int) -> Bool[Tensor, "batch time"] | None:
    """Return which of the present tokens are real, from a mask over all tokens so far or over the present
    ones.

    Args:
        attention_mask: what the caller passed.
        tokens: ``[batch, time, ...]``, the present ones.
        past: how many there were before.

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
    (batch, time), (rows, columns) = tokens.shape[:2], attention_mask.shape
    if rows != batch or not (columns == time or columns == past + time):
        raise ValueError(
            f"attention_mask is {tuple(attention_mask.shape)}: {batch} sequences of {past} + "
            f"{time} tokens need ({batch}, {past + time})"
        )
    if attention_mask.device != tokens.device:
        raise ValueError(
            f"attention_mask is on {attention_mask.device}, the tokens are on {tokens.device}: move it "
            f"with .to({str(tokens.device)!r})"
        )
    return attention_mask[:, columns - time :].bool()


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

    @property
    def empty(self) -> bool:
        """Whether there is no token at all."""
        return self.time == 0 or (self.index is not None and self.index.shape[1] == 0)

    def gathered(self, values: Shaped[Tensor, "batch time *rest"]) -> Shaped[Tensor, "rows steps *rest"]:
        """Lay values of the batch out in rows; on padding stands what stood somewhere."""
        return values if self.index is None else values.flatten(0, 1)[self.index]

    def put_back(
        self, values: Shaped[Tensor, "rows steps *rest"], *, blank: float = 0
    ) -> Shaped[Tensor, "batch time *rest"]:
        """Put values of rows back where their tokens stand; ``blank`` goes where no token is."""
        if self.index is None or self.mask is None:
            return values
        index, mask = self.index.to(values.device), self.mask.to(values.device)
        flat = values.new_full((self.batch * self.time + 1, *values.shape[2:]), blank)
        # Padding goes to a place of its own, which is dropped: no shape depends on how much of it there is.
        flat[torch.where(mask, index, self.batch * self.time)] = values
        return flat[:-1].unflatten(0, (self.batch, self.time))

    def latest(
        self, values: Shaped[Tensor, "rows steps *rest"], former: Shaped[Tensor, "rows *rest"] | None
    ) -> Shaped[Tensor, "rows *rest"]:
        """Return the values of each row's last token; of a row without tokens the former ones."""
        if self.mask is None:
            return values[:, -1]
        lengths = self.mask.to(values.device).sum(1)
        latest = values[torch.arange(len(values), device=values.device), (lengths - 1).clamp_min(0)]
        return latest if former is None else torch.where((lengths > 0)[:, None], latest, former)


# How sequences lie depends on the data: a compiled model leaves its graph for it.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def arrange(
    batch: int,
    time: int,
    mask: Bool[Tensor, "batch time"] | None,
    position_ids: Int[Tensor, "any time"] | None,
    before: Int[Tensor, " batch"] | None,
    *,
    longest: int | None,
) -> Rows:
    """Return the layout of a batch.

    Args:
        batch: its sequences.
        time: their tokens, padding included.
        mask: which tokens are real; None if all are.
        position_ids: position of each token in its sequence: where it does not follow its forerunner's,
            another sequence begins.
        before: how many tokens of each sequence a cache holds; None without a cache.
        longest: most tokens that a sequence may have, or None.

    Raises:
        ValueError: if there is no token, a sequence is too long, or positions do not go on where the cache
            stops.
    """
    if time == 0 or (mask is not None and not bool(mask.any())):
        if before is None:
            raise ValueError("attention_mask is zero everywhere: there is no token to work on")
        none = before.new_zeros(batch, 0)
        return Rows(batch=batch, time=time, index=none, mask=none.bool())
    rows = lay_out(batch, time, mask, None if position_ids is None else position_ids.expand(batch, -1))
    if before is not None:
        check_continuation(rows, before.cpu(), position_ids)
    tokens = int((rows.lengths + (0 if before is None else before.cpu())).max())
    if longest is not None and tokens > longest:
        raise ValueError(f"a sequence of {tokens} tokens is longer than max_position_embeddings {longest}")
    return rows


def arrange_fixed(
    batch: int,
    time: int,
    mask: Bool[Tensor, "batch time"] | None,
    position_ids: Int[Tensor, "any time"] | None,
    before: Int[Tensor, " batch"] | None,
    *,
    longest: int | None,
) -> Rows:
    """Return the layout of a batch for a graph in which no shape may depend on the data: every row of the
    batch is one sequence.

    Arguments as for :func:`arrange`. What it refuses, the graph refuses when it runs (RuntimeError); packed
    sequences, too.
    """
    rows = Rows(batch=batch, time=time) if mask is None else _flush_left(mask, *_packed_to(mask))
    lengths = time if mask is None else mask.sum(1)
    if mask is not None:
        _assert_all(mask.any(), "attention_mask is zero everywhere: there is no token to work on")
    if longest is not None:
        _assert_all(
            lengths + (0 if before is None else before) <= longest,
            f"a sequence is longer than max_position_embeddings {longest}",
        )
    if position_ids is not None:
        positions = rows.gathered(position_ids.expand(batch, -1))
        real = torch.ones_like(positions, dtype=torch.bool) if rows.mask is None else rows.mask
        _assert_all(
            ~_begins(positions, real)[:, 1:],
            "a graph of fixed shapes cannot hold packed sequences: pass one sequence a row",
        )
        if before is not None:
            _assert_all(
                (positions[:, 0] == before) | ~real[:, 0], "position_ids do not go on where the cache stops"
            )
    return rows


def _assert_all(holds: Tensor | bool, message: str) -> None:
    """Check now what is known now, and the rest when the graph runs."""
    if isinstance(holds, Tensor):
        torch._assert_async(holds.all(), message)
    elif not holds:
        raise ValueError(message)


def lay_out(
    batch: int,
    time: int,
    mask: Bool[Tensor, "batch time"] | None,
    positions: Int[Tensor, "batch time"] | None = None,
) -> Rows:
    """Return the layout of a batch; arguments as for :func:`arrange`."""
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
