"""Rows: every sequence of a batch once, side by side, and back to where it stood."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from torchcram.models.rows import Rows, arrange_fixed, lay_out

masks = st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4).filter(
    lambda rows: any(map(any, rows))
)


@given(masks, st.booleans())
def test_padding_is_moved_behind_and_back(mask, fixed):
    real = torch.tensor(mask)
    rows = arrange_fixed(*real.shape, real, None, None, longest=None) if fixed else lay_out(*real.shape, real)
    values = torch.arange(real.numel()).view(real.shape) + 1
    laid = rows.gathered(values)
    assert rows.lengths.tolist() == real.sum(1).tolist()
    for row, expected in enumerate(real):
        assert laid[row, : int(expected.sum())].tolist() == values[row][expected].tolist()
    assert torch.equal(rows.put_back(laid), torch.where(real, values, 0) if rows.mask is not None else values)
    assert not fixed or laid.shape == real.shape


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2))
def test_packed_sequences_get_a_row_each(lengths, padding):
    """Two rows of the batch hold the same sequences, and padding before them."""
    real = torch.cat([torch.zeros(padding), torch.ones(sum(lengths))]).bool().expand(2, -1)
    positions = torch.cat(
        [torch.zeros(padding, dtype=torch.long), *(torch.arange(length) for length in lengths)]
    ).expand(2, -1)
    rows = lay_out(*real.shape, real, positions)
    assert rows.lengths.tolist() == lengths * 2
    values = torch.arange(real.numel()).view(real.shape) + 1
    assert torch.equal(
        rows.put_back(rows.gathered(values)),
        torch.where(real, values, 0) if rows.mask is not None else values,
    )


def test_a_batch_without_holes_is_left_alone():
    ids = torch.ones(2, 3, dtype=torch.long)
    rows = lay_out(2, 3, torch.ones(2, 3, dtype=torch.bool), torch.arange(3).expand(2, -1))
    assert (rows.index, rows.mask) == (None, None)
    assert rows.gathered(ids) is ids
    assert rows.put_back(ids) is ids


def test_the_latest_values_are_those_of_the_last_tokens():
    values = torch.arange(12.0).view(3, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    ragged = Rows(batch=3, time=4, index=mask.long(), mask=mask)
    assert ragged.latest(values[..., None], torch.full((3, 1), 99.0)).tolist() == [[3.0], [4.0], [99.0]]
    assert Rows(batch=3, time=4).latest(values, None).tolist() == [3.0, 7.0, 11.0]
