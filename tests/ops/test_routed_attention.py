"""Routed attention computes what its definition says for the selected queries, and nothing for the others."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchcram.ops.routed_attention import (
    choice,
    dense_attention,
    routed_attention,
    routed_attention_lse,
    routed_attention_reference,
    tiled,
)
from torchcram.ops.routed_attention.packing import pack, visible_entries

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def problem(time: int, offset: int = 1, *, batch: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = (time, offset + time, offset + time)
    return [
        torch.randn(batch, 2, length, 4, generator=generator, dtype=torch.float64).requires_grad_()
        for length in lengths
    ]


def selection(time: int, share: float, *, batch: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(batch, time, generator=torch.Generator().manual_seed(seed + 100)) < share


def results(function, arguments: list[Tensor], selected: Tensor, **options) -> list[Tensor]:
    output = function(*arguments, selected, **options)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(7), dtype=output.dtype)
    return [
        output,
        *torch.autograd.grad((output * weights).sum() + 0 * sum(a.sum() for a in arguments), arguments),
    ]


def assert_equal_with_gradients(arguments: list[Tensor], selected: Tensor, **options) -> None:
    pairs = zip(
        *(
            results(function, arguments, selected, **options)
            for function in (routed_attention, routed_attention_reference)
        ),
        strict=True,
    )
    for fast, slow in pairs:
        torch.testing.assert_close(fast, slow, **EXACT)


@pytest.fixture(params=["tiled", "gathered", "blocks", "dense"])
def way(request, monkeypatch):
    """Each way to compute it, whatever the library would choose.

    Tiles and blocks are so small that nine steps fill several.
    """
    monkeypatch.setattr(choice, "TILED_LENGTH", 0 if request.param == "tiled" else 10**9)
    for name in ("NARROW_HEAD", "NARROW_FORWARD_HEAD"):
        monkeypatch.setattr(choice, name, 10**9 if request.param == "blocks" else 0)
    monkeypatch.setattr(choice, "SHORTEST_BLOCK", 2)
    monkeypatch.setattr(choice, "DENSE_SHARE", 0.2 if request.param == "dense" else 2.0)
    monkeypatch.setattr(tiled, "SHORTEST", 3)
    monkeypatch.setattr(tiled, "SCORES", 6)
    return request.param


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.1], ids=["none", "some", "most", "all"])
@pytest.mark.parametrize("offset", [1, 6])
@pytest.mark.parametrize("window", [None, 1, 4, 100])
def test_outputs_and_gradients_are_those_of_the_reference(share, offset, window):
    assert_equal_with_gradients(problem(9, offset), selection(9, share), offset=offset, window=window)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("time", [1, 9])
@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_heads_may_share_keys(time, shared, window, share):
    query, key, value = problem(time, 3)
    arguments = [
        query.repeat(1, 2, 1, 1).detach().requires_grad_(),
        key[:, :shared].detach().requires_grad_(),
        value[:, :shared].detach().requires_grad_(),
    ]
    assert_equal_with_gradients(arguments, selection(time, share), offset=3, window=window)
    dense = results(dense_attention, arguments, selection(time, share), offset=3, window=window)
    for fast, slow in zip(
        dense,
        results(routed_attention_reference, arguments, selection(time, share), offset=3, window=window),
        strict=True,
    ):
        torch.testing.assert_close(fast, slow, **EXACT)


def test_heads_that_share_keys_have_the_same_log_sum_exp_as_with_keys_of_their_own():
    query, key, value = problem(9)
    twice = query.repeat_interleave(2, 1)
    shared, own = (
        routed_attention_lse(twice, *tensors, selection(9, 0.5))
        for tensors in ((key, value), [x.repeat_interleave(2, 1) for x in (key, value)])
    )
    for mine, theirs in zip(shared, own, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("time", [1, 9])
def test_keys_of_another_precision_are_taken_in_that_of_the_queries(time):
    """As under autocast, which the backward pass does not know of."""
    query, key, value = (tensor.detach().float().requires_grad_() for tensor in problem(time))
    found = routed_attention(query.bfloat16(), key, value, selection(time, 1.0))
    found.float().sum().backward()
    assert (found.dtype, query.grad.dtype, key.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    torch.testing.assert_close(
        found.float(),
        routed_attention_reference(query, key, value, selection(time, 1.0)),
        rtol=0.05,
        atol=0.05,
    )


def test_the_log_sum_exp_of_coarse_scores_is_not_coarse():
    query, key, value = (tensor.detach().bfloat16() for tensor in problem(9))
    output, lse = routed_attention_lse(query, key, value, selection(9, 0.5))
    assert (output.dtype, lse.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("attend", [routed_attention, routed_attention_lse])
def test_a_window_without_entries_is_an_error(attend):
    with pytest.raises(ValueError, match="a window of 0 entries sees nothing"):
        attend(*problem(9), selection(9, 0.5), window=0)


def test_heads_that_cannot_share_keys_evenly_are_an_error():
    query, key, value = problem(9)
    with pytest.raises(ValueError, match="2 query heads cannot share 3 heads of keys"):
        routed_attention(query, key[:, [0, 1, 1]], value[:, [0, 1, 1]], selection(9, 0.5))


@pytest.mark.usefixtures("way")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    time=st.integers(1, 12),
    offset=st.integers(1, 5),
    window=st.none() | st.integers(1, 8),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_any_selection_will_do(time, offset, window, share, seed):
    assert_equal_with_gradients(
        problem(time, offset, seed=seed), selection(time, share, seed=seed), offset=offset, window=window
    )


@pytest.mark.parametrize("window", [None, 3])
def test_each_sequence_may_have_its_own_offset(window):
    offsets = torch.tensor([1, 6, 3])
    assert_equal_with_gradients(problem(9, 6), selection(9, 0.5), offset=offsets, window=window)
    (query, key, value), selected = problem(9, 6), selection(9, 0.5)
    together = routed_attention(query, key, value, selected, offset=offsets, window=window)
    for row, offset in enumerate(offsets.tolist()):
        alone = routed_attention(
            query[[row]], key[[row]], value[[row]], selected[[row]], offset=offset, window=window
        )
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
    torch.testing.assert_close(
        output[:, :, 4], torch.einsum("bhl,bhld->bhd", scores.softmax(-1), value[:, :, [0, 4]]), **EXACT
    )


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
    assert torch.equal(
        routed_attention(query, key, value, selected), routed_attention(other, key, value, selected)
    )


def test_packing_lists_the_selected_steps_of_each_row_in_order():
    selected = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)
    position, real = pack(selected)
    assert [row[flag].tolist() for row, flag in zip(position, real, strict=True)] == [[1, 3], [], [0, 1, 3]]
    assert position.shape == (3, 3)
    assert pack(selected[:0])[0].numel() == 0


# tiles


def test_a_tile_is_computed_only_for_the_queries_that_see_a_part_of_it(monkeypatch):
    """Six entries in tiles of two, read by all of five steps in blocks of two, strictly earlier ones only:
    six tiles of nine."""
    monkeypatch.setattr(tiled, "SHORTEST", 1)
    monkeypatch.setattr(tiled, "SCORES", 4)
    found = tiled.tiles(torch.arange(1, 6)[None], length=6, heads=1, window=None)
    assert [(tile.first, tile.last, tile.start, tile.stop) for tile in found] == [
        (0, 2, 0, 2),
        (2, 4, 0, 2),
        (2, 4, 2, 4),
        (4, 5, 0, 2),
        (4, 5, 2, 4),
        (4, 5, 4, 5),
    ]
    # The first query of each block sees half of its last tile.
    assert [None if tile.hidden is None else tile.hidden.shape[1] for tile in found] == [
        1,
        None,
        1,
        None,
        None,
        None,
    ]


def test_with_a_window_distant_tiles_are_left_out(monkeypatch):
    monkeypatch.setattr(tiled, "SHORTEST", 2)
    monkeypatch.setattr(tiled, "SCORES", 4)
    found = tiled.tiles(torch.tensor([[1000]]), length=1001, heads=1, window=8)
    assert [(tile.start, tile.stop) for tile in found] == [(0, 1), (989, 993), (993, 997), (997, 1000)]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("window", [None, 3])
def test_the_log_sum_exp_is_that_of_the_visible_scores_and_has_a_gradient(window):
    (query, key, value), selected = problem(9), selection(9, 0.6)
    _, lse = routed_attention_lse(query, key, value, selected, window=window)
    visible = visible_entries(1 + torch.arange(9)[None], 10, window)[:, None]
    expected = (query @ key.mT).masked_fill(~visible, -torch.inf).logsumexp(-1)
    chosen = selected[:, None].expand_as(lse)
    torch.testing.assert_close(lse[chosen], expected[chosen], **EXACT)
    assert (lse[~chosen] == -torch.inf).all()
    for fast, slow in zip(
        *(torch.autograd.grad(x[chosen].square().sum(), (query, key)) for x in (lse, expected)), strict=True
    ):
        torch.testing.assert_close(fast, slow, **EXACT)


def test_scores_of_any_size_stay_finite():
    """Scores of plus and minus 500 in fp32: exponentials overflow, attention does not."""
    query, key, value = (tensor.detach().float() for tensor in problem(40))
    output, lse = routed_attention_lse(500 * query, key, value, torch.ones(3, 40, dtype=torch.bool))
    assert torch.isfinite(output).all()
    assert torch.isfinite(lse).all()
    slow = routed_attention_reference(500 * query, key, value, torch.ones(3, 40, dtype=torch.bool))
    torch.testing.assert_close(output, slow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("time", [1, 9])
def test_sequences_may_differ_in_what_was_written_before(time, window):
    """As in decoding: buffers with room to spare, whose last entries nobody may see.

    A single step reads views of single rows.
    """
    arguments, selected, offset = problem(time, 8), selection(time, 0.6, seed=3), torch.tensor([2, 8, 5])
    for fast in (routed_attention, dense_attention):
        pairs = zip(
            *(
                results(function, arguments, selected, offset=offset, window=window)
                for function in (fast, routed_attention_reference)
            ),
            strict=True,
        )
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, **EXACT)
