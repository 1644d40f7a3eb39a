"""A budget is kept at every token, spent as early as it can be, and decided causally."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lived import live, run
from torchcram.memory.block import CRAMBlock
from torchcram.memory.budget import affordable, allowance, counted
from torchcram.types import ReadBudget, Route, RoutingControl

flags = st.lists(st.booleans(), min_size=12, max_size=12)
budgets = st.one_of(
    st.floats(0, 1).map(lambda ratio: ReadBudget(ratio=ratio)),
    st.integers(0, 9).map(lambda tokens: ReadBudget(tokens=tokens)),
)


@given(wanted=flags, real=flags, budget=budgets, tokens=st.integers(0, 9), reads=st.integers(0, 9))
def test_the_bucket_pays_for_a_read_whenever_it_can(wanted, real, budget, tokens, reads):
    """Against the definition, token by token; also for a sequence that has spent more than the budget
    allows."""
    spent = torch.tensor([[tokens, reads]])
    granted = affordable(budget, torch.tensor([wanted]), torch.tensor([real]), spent)
    for wants, is_real, got in zip(wanted, real, granted[0].tolist(), strict=True):
        tokens += is_real
        pays = wants and is_real and reads + 1 <= int(allowance(budget, torch.tensor(tokens)))
        assert got == pays
        reads += pays
    assert counted(spent, granted, torch.tensor([real])).tolist() == [[tokens, reads]]


def test_the_allowance_is_a_share_rounded_down_or_a_number():
    tokens = torch.tensor([0, 9, 10, 100])
    assert allowance(ReadBudget(ratio=0.29), tokens).tolist() == [0, 2, 2, 29]
    assert allowance(ReadBudget(tokens=7), tokens).tolist() == [7, 7, 7, 7]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "one of ratio, tokens and risk_tolerance, got none of them"),
        ({"ratio": 0.1, "tokens": 3}, "got ratio and tokens"),
        ({"ratio": 30.0}, r"ratio 30.0 must lie in \[0, 1\]; a number of tokens is an integer: tokens=30"),
        ({"tokens": -1}, "tokens -1 must be at least 0"),
        ({"risk_tolerance": 1.0}, "risk_tolerance 1.0 must lie strictly between 0 and 1"),
    ],
)
def test_budgets_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ReadBudget(**fields)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "budget",
    [ReadBudget(ratio=0.2), ReadBudget(tokens=2), ReadBudget(ratio=0.0)],
    ids=["ratio", "tokens", "nothing"],
)
def test_a_block_keeps_its_budget_from_call_to_call(budget):
    """In halves as at once: the count is part of the state.

    Denied reads go to the likelier of the two other routes, everything else stays.
    """
    block, x, gap = live(CRAMBlock(32, slots=8)), torch.randn(3, 20, 32), torch.rand(3, 20)
    free, bound = RoutingControl(), RoutingControl(budget=budget)
    whole, unbounded = run(block, x, gap, control=bound), run(block, x, gap, control=free)
    first = run(block, x[:, :7], gap[:, :7], control=bound)
    second = run(block, x[:, 7:], gap[:, 7:], first.state, control=bound)
    torch.testing.assert_close(
        torch.cat([first.hidden_states, second.hidden_states], 1), whole.hidden_states, rtol=1e-9, atol=1e-9
    )
    assert torch.equal(second.state.spent, whole.state.spent)

    decision, reads = whole.decision, whole.decision.used.cumsum(1)
    assert (reads <= allowance(budget, torch.arange(1, 21))).all()
    denied = unbounded.decision.used & ~decision.used
    assert denied.any()
    assert torch.equal(decision.route[~denied], unbounded.decision.route[~denied])
    free_ways = decision.probabilities[..., : Route.EPISODIC].argmax(-1)
    assert torch.equal(decision.route[denied], free_ways[denied])
    assert unbounded.state.spent is None
