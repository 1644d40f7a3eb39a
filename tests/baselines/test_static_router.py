"""The static router: the same token is routed alike wherever it stands.

And the read itself is the ordinary one.
"""

import pytest
import torch
from torch import Tensor

from lived import live, run
from torchcram.baselines.static_router import StaticRouterBlock
from torchcram.models.sequence import SequenceModel
from torchcram.types import Batch, Head, Learning, Route, RoutingControl

WIDTH, BATCH, TIME, SYMBOLS = 32, 4, 30, 5
ROUTED = RoutingControl()
TRAINING = RoutingControl(learning=Learning(exploration=0.3, consolidate=True))
HEADS = (Head(name="answer", kind="classification", size=2),)

pytestmark = pytest.mark.usefixtures("float64")


def symbols() -> Batch:
    return Batch(inputs=torch.randint(SYMBOLS, (BATCH, TIME)), gap=torch.ones(BATCH, TIME))


def probabilities_by_symbol(mixer: str, batch: Batch) -> list[list[Tensor]]:
    """For each layer and symbol: p(EPISODIC) at all its occurrences."""
    model = live(SequenceModel(HEADS, vocabulary=SYMBOLS, d_model=WIDTH, layers=3, mixer=mixer))
    decisions = [block.decision for block in model(batch, control=ROUTED).blocks]
    return [
        [decision.probabilities[batch.inputs == symbol][:, Route.EPISODIC] for symbol in range(SYMBOLS)]
        for decision in decisions
    ]


def test_in_every_layer_the_same_token_is_routed_alike_wherever_it_stands():
    for layer in probabilities_by_symbol("static_router", symbols()):
        for occurrences in layer:
            torch.testing.assert_close(
                occurrences, occurrences[:1].expand_as(occurrences), rtol=1e-12, atol=1e-12
            )
        assert torch.cat([one[:1] for one in layer]).std() > 1e-2, "and different tokens are not"


def test_a_router_that_sees_the_state_is_not_static():
    assert all(
        occurrences.std() > 1e-3
        for layer in probabilities_by_symbol("cram_no_consolidation", symbols())
        for occurrences in layer
    )


def test_the_decision_needs_the_token_and_nothing_but_the_token():
    mixer = live(StaticRouterBlock(WIDTH))
    token, gap = torch.randn(BATCH, TIME, WIDTH), torch.rand(BATCH, TIME)
    ours = run(mixer, torch.randn(BATCH, TIME, WIDTH), gap, token=token, control=ROUTED)
    theirs = run(
        mixer, torch.randn(BATCH, TIME, WIDTH), 2 * gap, state=ours.state, token=token, control=ROUTED
    )
    assert torch.equal(ours.decision.probabilities, theirs.decision.probabilities)
    assert not torch.equal(ours.hidden_states, theirs.hidden_states)
    moved = run(mixer, torch.zeros(BATCH, TIME, WIDTH), gap, token=token.flip(1), control=ROUTED)
    torch.testing.assert_close(moved.decision.probabilities.flip(1), ours.decision.probabilities)


def test_in_a_first_block_the_hidden_states_are_the_tokens():
    mixer, x, gap = live(StaticRouterBlock(WIDTH)), torch.randn(BATCH, TIME, WIDTH), torch.rand(BATCH, TIME)
    assert torch.equal(
        *(run(mixer, x, gap, token=token, control=ROUTED).decision.probabilities for token in (None, x))
    )


def test_it_pays_and_explores_as_cram_does_and_consolidates_nothing():
    mixer = live(StaticRouterBlock(WIDTH))
    output = run(
        mixer,
        torch.randn(BATCH, TIME, WIDTH),
        torch.rand(BATCH, TIME),
        noise=torch.rand(BATCH, TIME, 4),
        control=TRAINING,
    )
    torch.testing.assert_close(
        output.losses["price"], output.decision.probabilities[..., Route.EPISODIC].mean()
    )
    assert output.decision.explored.any()
    assert set(output.losses) == {"price"}
    assert output.lesson is None
    assert not (output.decision.asked.any() or (output.decision.route == Route.SEMANTIC).any())


@pytest.mark.parametrize("read_share", [0.1, 0.5])
def test_with_a_read_share_so_many_tokens_read_and_routing_stays_static(read_share):
    mixer = live(StaticRouterBlock(WIDTH, read_share=read_share))
    token, gap = torch.randn(5, 40, WIDTH), torch.rand(5, 40)
    for _ in range(30):
        mixer.after_step(run(mixer, token, gap, token=token, control=TRAINING))
    decision = run(mixer, token, gap, token=token, control=ROUTED).decision
    assert decision.read.float().mean() == pytest.approx(read_share, abs=0.01)
    # They are those in greatest need.
    need = decision.probabilities[..., Route.EPISODIC]
    assert need[decision.read].min() >= need[~decision.read].max()


def test_the_read_share_waits_until_reads_are_routed_and_ignores_padding():
    mixer = live(StaticRouterBlock(WIDTH, read_share=0.25))
    token, gap, mask = torch.randn(5, 60, WIDTH), torch.rand(5, 60), torch.arange(60).expand(5, 60) < 40
    before = mixer.router.offset.clone()
    mixer.after_step(run(mixer, token, gap, token=token, control=RoutingControl(reads="all")))
    assert torch.equal(mixer.router.offset, before)
    for _ in range(30):
        mixer.after_step(run(mixer, token, gap, token=token, mask=mask, control=TRAINING))
    assert run(mixer, token, gap, token=token, mask=mask, control=ROUTED).decision.read[
        mask
    ].float().mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("read_share", [0.0, 1.0, -0.1])
def test_an_impossible_read_share_is_an_error(read_share):
    with pytest.raises(ValueError, match=f"read_share {read_share} must lie strictly between 0 and 1"):
        StaticRouterBlock(WIDTH, read_share=read_share)
