"""The bound is what an optimal static reader reaches on SRCD with a redrawn map, and what none exceeds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchcram.reproduce.lower_bound import static_accuracy
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.tasks.srcd_oracle import exact_retrieval

VALUES = 4
CONFIG = SRCDConfig(
    length=60, patterns=8, values=VALUES, key_size=8, query_share=0.2, binding_share=0.2, redrawn_map=True
)
shares, several = st.floats(0.0, 1.0), st.integers(2, 50)


def static_reader(batch, direction, *, read_share, guesses=None):
    """Read the queries whose keys point furthest along a direction, up to the read share; guess by the key
    alone elsewhere.

    Return, per query, whether it is answered, and the share of the steps read.
    """
    query = batch.slices["query"]
    keys = batch.inputs[..., -CONFIG.key_size - VALUES : -VALUES]
    score = (keys @ direction)[query]
    read = torch.zeros_like(score, dtype=torch.bool)
    count = round(min(read_share * query.numel(), len(score)))
    read[score.topk(count).indices] = True
    guess = (keys[query] @ guesses).argmax(-1)
    answer = torch.where(read, exact_retrieval(batch, config=CONFIG)[query], guess)
    return (answer == batch.targets["answer"][query]).double(), count / query.numel()


@pytest.fixture(scope="module")
def batch():
    return SRCD(CONFIG).batch(1500, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("read_share", [0.0, 0.05, 0.1, 0.15, 0.2, 0.5])
def test_a_static_reader_on_a_redrawn_map_reaches_the_bound(batch, read_share):
    """Monte Carlo: whichever keys it reads, and whatever it guesses by the key, a static reader comes to
    the bound within five standard errors."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction, guesses = (
            torch.randn(CONFIG.key_size, generator=generator),
            torch.randn(CONFIG.key_size, VALUES, generator=generator),
        )
        right, spent = static_reader(batch, direction, read_share=read_share, guesses=guesses)
        bound = static_accuracy(spent, query_share=0.2, values=VALUES)
        # Queries of one key in one sequence share their value: at most all 12 queries of a sequence stand and
        # fall together.
        assert right.mean().item() == pytest.approx(
            bound, abs=5 * math.sqrt(0.25 / (len(right) / 12)) if read_share < 0.2 else 1e-9
        )


def test_the_best_of_many_static_guesses_does_not_beat_chance_by_more_than_luck(batch):
    """No table from keys to values helps where the map is redrawn: not even the one that is best on half
    of the sequences, judged on the other half."""
    query, pattern, answer = batch.slices["query"], batch.info["pattern"], batch.targets["answer"]
    seen, fresh = slice(0, 750), slice(750, None)
    counts = torch.zeros(CONFIG.patterns, VALUES)
    recurring = query & (pattern >= 0)
    counts.index_put_(
        (pattern[seen][recurring[seen]], answer[seen][recurring[seen]]),
        torch.ones(int(recurring[seen].sum())),
        accumulate=True,
    )
    right = counts.argmax(1)[pattern[fresh][recurring[fresh]]] == answer[fresh][recurring[fresh]]
    assert right.float().mean().item() == pytest.approx(
        1 / VALUES, abs=5 * math.sqrt(0.1875 / (len(right) / 12))
    )


def test_on_a_map_that_stays_the_same_table_escapes_the_bound():
    config = CONFIG.updated("redrawn_map", False)
    batch = SRCD(config).batch(200, generator=torch.Generator().manual_seed(0))
    query, pattern = batch.slices["query"], batch.info["pattern"]
    recurring = query & (pattern >= 0)
    assert torch.equal(SRCD(config).pattern_values()[pattern[recurring]], batch.targets["answer"][recurring])
    known = recurring.sum().item() / query.sum().item()
    assert (
        static_accuracy(0.0, query_share=0.2, values=VALUES, known=known)
        > static_accuracy(0.0, query_share=0.2, values=VALUES) + 0.3
    )


def test_the_figures_of_srcd():
    bound = {
        read_share: static_accuracy(read_share, query_share=0.05, values=16)
        for read_share in (0.0, 0.014, 0.025, 0.05, 1.0)
    }
    assert bound == pytest.approx({0.0: 1 / 16, 0.014: 0.325, 0.025: 0.53125, 0.05: 1.0, 1.0: 1.0})
    # Consolidation reads for what is new alone: the paper's floor.
    assert static_accuracy(0.015, query_share=0.05, values=16, known=0.7) == pytest.approx(1.0)
    assert static_accuracy(0.0149, query_share=0.05, values=16, known=0.7) < 1.0


@given(shares, st.floats(0.01, 1.0), several, st.floats(0.0, 0.99))
def test_accuracy_is_monotone_and_full_at_the_floor(read_share, query_share, values, known):
    accuracy = static_accuracy(read_share, query_share=query_share, values=values, known=known)
    assert (
        static_accuracy(min(1.0, read_share + 0.1), query_share=query_share, values=values, known=known)
        >= accuracy - 1e-12
    )
    assert accuracy >= static_accuracy(read_share, query_share=query_share, values=values) - 1e-12
    floor = query_share * (1 - known)
    assert static_accuracy(floor, query_share=query_share, values=values, known=known) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"read_share": 1.2}, "read_share 1.2 is a share of the steps"),
        ({"query_share": 0.0}, "query_share 0.0 is a share of the steps"),
        ({"values": 0}, "values 0 must be at least 1"),
        ({"known": -0.1}, "known -0.1 is a share of the queries"),
    ],
)
def test_what_is_no_share_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        static_accuracy(**{"read_share": 0.1, "query_share": 0.05, "values": 16, **arguments})
