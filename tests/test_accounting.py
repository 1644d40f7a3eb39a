"""Accounting, by hand: reads, keys, costs, reductions and the transition step."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchcram.accounting import (
    MixingCost,
    MixingCounts,
    any_layer,
    any_layer_used,
    attention_cost,
    dense_keys,
    in_need,
    keys_scanned,
    keys_visible,
    mixing_shares,
    reduction,
    transition_step,
)
from torchcram.types import Route, RoutingDecision

W, S, E = (int(route) for route in (Route.WORKING, Route.SEMANTIC, Route.EPISODIC))


def decided(routes: list[list[int]]) -> RoutingDecision:
    route = torch.tensor(routes)
    nothing, nobody = torch.zeros(route.shape), torch.zeros(route.shape, dtype=torch.bool)
    probabilities = torch.nn.functional.one_hot(route, 3).float()
    return RoutingDecision(
        route=route,
        probabilities=probabilities,
        familiarity=nothing,
        explored=nobody,
        weight=nothing,
        asked=nobody,
    )


def test_reads_and_needs_are_counted_over_layers():
    layers = [decided([[E, W, S, W], [W, W, W, W]]), decided([[W, W, E, S], [W, E, W, W]])]
    assert any_layer(layers).tolist() == [[True, False, True, False], [False, True, False, False]]
    assert in_need(layers).tolist() == [[True, False, True, True], [False, True, False, False]]


def test_a_read_scans_the_null_entry_and_everything_before():
    assert keys_visible(torch.ones(2, 4, dtype=torch.bool)).tolist() == [[1, 2, 3, 4]] * 2
    assert keys_visible(torch.ones(1, 5, dtype=torch.bool), window=2).tolist() == [[1, 2, 3, 3, 3]]
    read = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1]], dtype=torch.bool)
    assert keys_scanned(read) == 2 + 4 + 4
    assert keys_scanned(read, window=1) == 2 + 2 + 2


def test_where_only_some_tokens_are_written_a_read_scans_no_others():
    written = torch.tensor([[1, 0, 1, 1, 0]], dtype=torch.bool)
    assert keys_visible(written).tolist() == [[1, 2, 2, 3, 4]]
    assert keys_visible(written, window=2).tolist() == [[1, 2, 2, 3, 3]]
    assert keys_scanned(written, written=written) == 1 + 2 + 3
    assert keys_scanned(torch.ones_like(written), written=torch.zeros_like(written)) == 5


def test_a_read_that_only_finds_the_route_costs_like_any_other():
    """Two steps ask; one of them is answered by semantic memory, but only after a read."""
    plain = decided([[E, S, W]])
    judged = replace(plain, observed=torch.tensor([[True, True, False]]))
    assert any_layer([plain]).tolist() == [[True, False, False]]
    assert any_layer([judged]).tolist() == [[True, True, False]]
    assert any_layer_used([judged]).tolist() == [[True, False, False]]
    assert judged.computed.tolist() == [[True, True, False]]
    assert keys_scanned(judged.read) == 1 + 2


@given(st.integers(1, 30), st.integers(1, 40))
def test_what_is_counted_is_what_routed_attention_can_see(time, window):
    from torchcram.ops.routed_attention.packing import visible_entries

    seen = visible_entries(1 + torch.arange(time)[None], time + 1, window).sum(-1)
    assert torch.equal(seen, keys_visible(torch.ones(1, time, dtype=torch.bool), window=window))


def test_dense_attention_scans_no_padding():
    assert dense_keys(torch.ones(3, 5, dtype=torch.bool)) == 3 * 15
    assert dense_keys(torch.arange(4) < torch.tensor([[4], [2]])) == 10 + 3


def test_shares_of_operations_and_bytes_by_hand():
    """Two layers, one of which only scans 10 of 100 keys, while the other also pays for 5 tokens, 2
    questions and 1 binding."""
    costs = [
        attention_cost(8),
        MixingCost(
            flops_key=32,
            bytes_key=64,
            flops_token=1,
            bytes_token=2,
            flops_asked=3,
            bytes_asked=4,
            flops_written=5,
            bytes_written=6,
        ),
    ]
    assert (costs[0].flops_key, costs[0].bytes_key) == (32, 64)
    counts = [MixingCounts(keys=10, tokens=5), MixingCounts(keys=20, tokens=5, asked=2, written=1)]
    flops, moved = mixing_shares(costs, counts, dense_keys_per_layer=100)
    assert flops == pytest.approx((32 * 10 + 32 * 20 + 5 + 6 + 5) / 6400)
    assert moved == pytest.approx((64 * 10 + 64 * 20 + 10 + 8 + 6) / 12800)


def test_dense_attention_costs_all_of_itself():
    counts = [MixingCounts(keys=100, tokens=10)] * 3
    assert mixing_shares([attention_cost(8)] * 3, counts, dense_keys_per_layer=100) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("rates", "step"),
    [
        ([1.0, 0.9, 0.03, 0.02], 20),
        ([1.0, 0.03, 0.04, 0.02], 30),
        ([1.0, 0.03, 0.01, 0.02], 10),
        ([0.02, 0.03, 0.02, 0.02], 0),
        ([0.5, 0.01, 0.1, 0.0], 30),
        ([0.02, 0.02, 0.02, 1.0], None),
    ],
)
def test_the_transition_is_where_the_rate_goes_down_for_good(rates, step):
    assert transition_step([0, 10, 20, 30], rates, final=0.02) == step


def test_without_a_record_no_transition():
    assert transition_step([], [], final=0.02) is None


positive = st.floats(1e-4, 1.0)


@given(peak=positive, need=positive, final=positive)
def test_need_times_consolidation_is_the_whole_reduction(peak, need, final):
    result = reduction(peak_rate=peak, need_rate=need, final_rate=final, peak_share=1.0, final_share=0.5)
    assert result.any_layer == pytest.approx(result.need * result.consolidation)
    assert result.any_layer == pytest.approx(peak / final)
    assert result.need == pytest.approx(peak / need)
    assert result.attention_share == 2.0


def test_the_example_of_the_paper():
    """All tokens read at first, 5% are in need, 1.5% still read: a factor 20 by need, and 3.3 by
    consolidation."""
    result = reduction(peak_rate=1.0, need_rate=0.05, final_rate=0.015, peak_share=1.0, final_share=0.0076)
    assert (result.need, result.consolidation) == (pytest.approx(20), pytest.approx(10 / 3))


def test_no_reads_left_is_an_infinite_reduction_and_none_at_all_is_none():
    gone = reduction(peak_rate=1.0, need_rate=0.0, final_rate=0.0, peak_share=0.0, final_share=0.0)
    assert (gone.any_layer, gone.need, gone.consolidation, gone.attention_share) == (
        math.inf,
        math.inf,
        1.0,
        1.0,
    )
