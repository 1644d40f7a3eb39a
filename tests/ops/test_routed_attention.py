"""Routed attention computes what its definition says for the selected queries, and nothing for the others."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchcram.ops.routed_attention import routed_attention, routed_attention_reference
from torchcram.ops.routed_attention.gathered import pack

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def problem(time: int, offset: int = 1, *, batch: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = (time, offset + time, offset + time)
    return [torch.randn(batch, 2, length, 4, generator=generator, dtype=torch.float64).requires_grad_() for length in lengths]


def selection(time: int, share: float, *, batch: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(batch, time, generator=torch.Generator().manual_seed(seed + 100)) < share


def assert_equal_with_gradients(arguments: list[Tensor], selected: Tensor, **options) -> None:
    results = []
    for function in (routed_attention, routed_attention_reference):
        output = function(*arguments, selected, **options)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(7), dtype=output.dtype)
        results.append([output, *torch.autograd.grad((output * weights).sum() + 0 * sum(a.sum() for a in arguments), arguments)])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, **EXACT)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.1], ids=["none", "some", "all"])
@pytest.mark.parametrize("offset", [1, 6])
@pytest.mark.parametrize("window", [None, 1, 4, 100])
def test_outputs_and_gradients_are_those_of_the_reference(share, offset, window):
    assert_equal_with_gradients(problem(9, offset), selection(9, share), offset=offset, window=window)


@given(time=st.integers(1, 12), offset=st.integers(1, 5), window=st.none() | st.integers(1, 8), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_any_selection_will_do(time, offset, window, share, seed):
    assert_equal_with_gradients(problem(time, offset, seed=seed), selection(time, share, seed=seed), offset=offset, window=window)


@pytest.mark.parametrize("window", [None, 3])
def test_each_sequence_may_have_its_own_offset(window):
    offsets = torch.tensor([1, 6, 3])
    assert_equal_with_gradients(problem(9, 6), selection(9, 0.5), offset=offsets, window=window)
    (query, key, value), selected = problem(9, 6), selection(9, 0.5)
    together = routed_attention(query, key, value, selected, offset=offsets, window=window)
    for row, offset in enumerate(offsets.tolist()):
        alone = routed_attention(query[[row]], key[[row]], value[[row]], selected[[row]], offset=offset, window=window)
        torch.testing.assert_close(together[[row]], alone, **EXACT)


@pytest.mark.parametrize("t", [0, 4, 8])
def test_a_single_token_of_a_single_row(t):
    selected = torch.zeros(3, 9, dtype=torch.bool)
    selected[1, t] = True
    assert_equal_with_gradients(problem(9), selected)


def test_the_first_query_reads_the_null_entry_alone():
    query, key, value = problem(3)
    output = routed_attention(query, key, value, torch.ones(3, 3, dtype=torch.bool))
    torch.testing.assert_close(output[:, :, 0], value[:, :, 0], **EXACT)


def test_a_window_of_one_reads_the_null_entry_and_the_one_before():
    query, key, value = problem(5)
    output = routed_attention(query, key, value, torch.ones(3, 5, dtype=torch.bool), window=1)
    scores = torch.einsum("bhd,bhld->bhl", query[:, :, 4], key[:, :, [0, 4]])
    torch.testing.assert_close(output[:, :, 4], torch.einsum("bhl,bhld->bhd", scores.softmax(-1), value[:, :, [0, 4]]), **EXACT)


def test_who_else_is_selected_makes_no_difference():
    arguments, one = problem(9), torch.zeros(3, 9, dtype=torch.bool)
    one[:, 5] = True
    alone = routed_attention(*arguments, one)
    for seed in range(5):
        together = routed_attention(*arguments, one | selection(9, 0.5, seed=seed))
        torch.testing.assert_close(together[:, :, 5], alone[:, :, 5], **EXACT)
    assert (alone[:, :, [0, 1, 2, 3, 4, 6, 7, 8]] == 0).all()


def test_what_an_unselected_query_holds_makes_no_difference():
    (query, key, value), selected = problem(9), selection(9, 0.5)
    other = torch.where(selected[:, None, :, None], query, 1e3 * torch.randn_like(query))
    assert torch.equal(routed_attention(query, key, value, selected), routed_attention(other, key, value, selected))


def test_packing_lists_the_selected_steps_of_each_row_in_order():
    selected = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)
    position, real = pack(selected)
    assert [row[flag].tolist() for row, flag in zip(position, real, strict=True)] == [[1, 3], [], [0, 1, 3]]
    assert position.shape == (3, 3)
    assert pack(selected[:0])[0].numel() == 0
