"""Mixture-of-Depths: a fixed share passes in training, a causal predictor decides in evaluation, and who
does not pass is not there."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lived import live, run
from torchcram.accounting import keys_scanned
from torchcram.baselines.mixture_of_depths import MixtureOfDepthsBlock, top_share
from torchcram.types import RoutingControl

WIDTH, BATCH, TIME = 32, 3, 16
ROUTED, DENSE = RoutingControl(), RoutingControl(reads="all")

pytestmark = pytest.mark.usefixtures("float64")


def block(**options) -> MixtureOfDepthsBlock:
    return live(MixtureOfDepthsBlock(WIDTH, **options))


def stream(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(BATCH, TIME, WIDTH, generator=generator),
        "gap": torch.rand(BATCH, TIME, generator=generator),
    }


# the capacity


@given(
    share=st.floats(0.01, 1),
    lengths=st.lists(st.integers(1, TIME), min_size=BATCH, max_size=BATCH),
    seed=st.integers(0, 50),
)
def test_of_each_sequence_the_top_share_passes(share, lengths, seed):
    score = torch.randn(BATCH, TIME, generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(TIME) < torch.tensor(lengths)[:, None]
    top = top_share(score, share, mask)
    assert top.sum(1).tolist() == [math.ceil(share * length - 1e-9) for length in lengths]
    assert not (top & ~mask).any()
    lowest, highest = (
        score.masked_fill(~top, math.inf).amin(1),
        score.masked_fill(top | ~mask, -math.inf).amax(1),
    )
    assert (lowest >= highest).all()


def test_in_training_the_capacity_is_kept_and_later_tokens_can_push_out_earlier_ones():
    mixer, given = block(capacity=0.25), stream()
    decision = run(mixer.train(), **given, control=ROUTED).decision
    assert decision.used.sum(1).tolist() == [4] * BATCH
    highest = (mixer.router.weight * mixer.memory_norm.weight).expand(BATCH, TIME, WIDTH)
    pushed = torch.where(torch.arange(TIME)[:, None] < TIME - 4, given["hidden_states"], highest)
    after = run(mixer, pushed, given["gap"], control=ROUTED).decision.used
    assert after[:, -4:].all(), "the last four have the highest score that there is"
    assert (decision.used & ~after)[:, :-4].any(), "this is why evaluation needs the predictor"


def test_in_evaluation_the_predictor_decides_alone():
    mixer, given = block(capacity=0.25).eval(), stream()
    before = run(mixer, **given, control=ROUTED).decision.used
    with torch.no_grad():
        mixer.router.weight.neg_()
    assert torch.equal(run(mixer, **given, control=ROUTED).decision.used, before)
    with torch.no_grad():
        mixer.predictor[2].bias.fill_(1e3)
    assert run(mixer, **given, control=ROUTED).decision.used.all()
    assert run(mixer.train(), **given, control=ROUTED).decision.used.sum() == 4 * BATCH


def test_while_everything_is_read_everything_passes():
    mixer = block(capacity=0.25)
    assert run(mixer.train(), **stream(), control=DENSE).decision.used.all()
    assert not run(mixer, **stream(), control=RoutingControl(reads="none")).decision.used.any()


# who does not pass


@pytest.mark.parametrize("training", [True, False])
def test_who_does_not_pass_is_left_as_it_is_and_seen_by_nobody(training):
    mixer, given = block(capacity=0.4).train(training), stream()
    before = run(mixer, **given, control=ROUTED)
    passed = before.decision.used
    assert torch.equal((before.hidden_states == given["hidden_states"]).all(-1), ~passed)
    nudged = given["hidden_states"] + 1e-6 * ~passed[..., None] * torch.randn(BATCH, TIME, WIDTH)
    after = run(mixer, nudged, given["gap"], control=ROUTED)
    assert torch.equal(after.decision.used, passed)
    assert torch.equal(after.hidden_states[passed], before.hidden_states[passed])
    assert torch.equal(after.state.episodic.entries, 1 + passed.sum(1))


def test_the_keys_that_are_counted_are_those_of_tokens_that_passed():
    decision = run(block(capacity=0.25).train(), **stream(), control=ROUTED).decision
    # Four pass: they scan the null entry, and none, one, two, three keys.
    assert keys_scanned(decision.read, written=decision.written) == BATCH * (4 + 0 + 1 + 2 + 3)


def test_the_score_scales_what_the_block_adds():
    mixer, given = block(), stream()
    gains = []
    for bias in (0.0, -1.0):
        with torch.no_grad():
            mixer.router.weight.zero_()
            mixer.router.bias.fill_(bias)
        gains.append(run(mixer, **given, control=DENSE).hidden_states - given["hidden_states"])
    torch.testing.assert_close(
        gains[1] / gains[0], torch.full_like(gains[0], float(torch.sigmoid(torch.tensor(-1.0)) / 0.5))
    )


# the predictor


@pytest.mark.parametrize("loss", ["predictor", "price"])
def test_what_teaches_the_predictor_teaches_nothing_else(loss):
    mixer = block().train()
    run(mixer, **stream(), control=ROUTED).losses[loss].backward()
    touched = {
        name.split(".")[0]
        for name, parameter in mixer.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert touched == {"predictor"}


def test_the_predictor_learns_what_the_router_lets_through():
    mixer, given = (
        MixtureOfDepthsBlock(WIDTH, capacity=0.25),
        {"hidden_states": torch.randn(4, 20, WIDTH), "gap": torch.rand(4, 20)},
    )
    optimizer = torch.optim.Adam(mixer.predictor.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        run(mixer, **given, control=ROUTED).losses["predictor"].backward()
        optimizer.step()
    trained, decided = (
        run(mixer.train(mode), **given, control=ROUTED).decision.used for mode in (True, False)
    )
    assert (trained == decided).double().mean() > 0.97
