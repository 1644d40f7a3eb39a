"""mTAND: observations are a set, weights are those of a softmax over the moments of each variable, and
what was never seen is the mean."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lived import live
from torchcram.baselines.encoder import MaskedVectors
from torchcram.baselines.mtand import MTAND, MultiTimeAttention, TimeEmbedding

VARIABLES, WIDTH, BATCH, TIME, MOMENTS = 4, 8, 3, 9, 5

pytestmark = pytest.mark.usefixtures("float64")


def series(*, seed: int = 0, **changed: Tensor) -> MaskedVectors:
    generator = torch.Generator().manual_seed(seed)
    real = torch.arange(TIME) < torch.tensor([TIME, 6, 1])[:, None]
    seen = (torch.rand(BATCH, TIME, VARIABLES, generator=generator) < 0.5) * real[..., None].double()
    values = torch.randn(BATCH, TIME, VARIABLES, generator=generator) * seen
    return replace(
        MaskedVectors(
            values=values, seen=seen, gap=torch.rand(BATCH, TIME, generator=generator) * real, real=real
        ),
        **changed,
    )


@pytest.fixture
def attention(float64: None) -> MultiTimeAttention:
    return live(MultiTimeAttention(VARIABLES, WIDTH, heads=2, time_size=6))


def moments() -> Tensor:
    return torch.linspace(0, 1, MOMENTS).expand(BATCH, -1)


def test_it_is_a_softmax_over_the_moments_at_which_each_variable_was_seen(attention):
    given, time = series(), series().gap.cumsum(1)
    size, found = 6, torch.zeros(BATCH, MOMENTS, 2, 2 * VARIABLES)
    for head in range(2):
        rows = slice(head * size, (head + 1) * size)
        queries = attention.embed(moments()) @ attention.query.weight[rows].T
        keys = attention.embed(time) @ attention.key.weight[rows].T
        scores = queries @ keys.mT / size**0.5
        for b in range(BATCH):
            for v in range(VARIABLES):
                at = given.seen[b, :, v] > 0
                if at.any():
                    found[b, :, head, v] = scores[b][:, at].softmax(-1) @ given.values[b, at, v]
                found[b, :, head, VARIABLES + v] = (
                    scores[b][:, given.real[b]].softmax(-1) @ given.seen[b, given.real[b], v]
                )
    torch.testing.assert_close(attention(moments(), time, given), attention.out(found.flatten(2)))


def test_observations_are_a_set(attention):
    """Their order does not matter, as long as each keeps its time."""
    given, time = series(real=torch.ones(BATCH, TIME, dtype=torch.bool)), torch.rand(BATCH, TIME)
    order = torch.randperm(TIME, generator=torch.Generator().manual_seed(3))
    shuffled = replace(given, values=given.values[:, order], seen=given.seen[:, order])
    torch.testing.assert_close(
        attention(moments(), time[:, order], shuffled), attention(moments(), time, given)
    )
    # It is the times that tell them apart.
    assert (attention(moments(), time, shuffled) - attention(moments(), time, given)).abs().max() > 1e-3


def test_an_observation_split_in_two_of_the_same_moment_is_one(attention):
    """Two variables observed at one moment, as one step or as two steps without a gap: values are
    interpolated alike."""
    seen = torch.ones(1, 2, VARIABLES)
    joint = MaskedVectors(
        values=torch.randn(1, 2, VARIABLES),
        seen=seen,
        gap=torch.ones(1, 2),
        real=torch.ones(1, 2, dtype=torch.bool),
    )
    first = torch.tensor([1.0, 1.0, 0.0, 0.0])
    split = MaskedVectors(
        values=torch.stack(
            [joint.values[:, 0] * first, joint.values[:, 0] * (1 - first), joint.values[:, 1]], 1
        ),
        seen=torch.stack([first, 1 - first, torch.ones(VARIABLES)])[None],
        gap=torch.tensor([[1.0, 0.0, 1.0]]),
        real=torch.ones(1, 3, dtype=torch.bool),
    )
    attention.out = torch.nn.Identity()
    one, two = (
        attention(moments()[:1], given.gap.cumsum(1), given).unflatten(-1, (2, 2, VARIABLES))[..., 0, :]
        for given in (joint, split)
    )
    torch.testing.assert_close(one, two)


def test_a_variable_that_was_never_seen_is_its_mean(attention):
    given = series()
    given = replace(
        given,
        values=given.values * torch.tensor([0.0, 1, 1, 1]),
        seen=given.seen * torch.tensor([0.0, 1, 1, 1]),
    )
    attention.out = torch.nn.Identity()
    found = attention(moments(), given.gap.cumsum(1), given).unflatten(-1, (2, 2, VARIABLES))
    assert (found[..., 0] == 0).all()


def test_the_embedding_is_linear_in_its_first_feature_and_periodic_in_the_others():
    embed = live(TimeEmbedding(5))
    time = torch.linspace(0, 1, 7)
    torch.testing.assert_close(embed(time)[:, 0].diff(), embed.frequency[0].expand(6) / 6)
    turn = 2 * torch.pi / embed.frequency[3]
    torch.testing.assert_close(embed(time + turn)[:, 3], embed(time)[:, 3])


def test_the_unit_of_time_is_the_span(float64):
    encoder, given = live(MTAND(VARIABLES, WIDTH, references=4, span=2.0)), series()
    longer = MTAND(VARIABLES, WIDTH, references=4, span=2000.0)
    longer.load_state_dict(encoder.state_dict())
    other = longer(replace(given, gap=1000 * given.gap), steps=True, whole=True)
    ours = encoder(given, steps=True, whole=True)
    torch.testing.assert_close(other.whole, ours.whole)
    torch.testing.assert_close(other.steps, ours.steps)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="references 0 must be above 0"):
        MTAND(VARIABLES, WIDTH, references=0)
    with pytest.raises(ValueError, match=r"span 0\.0 must be above 0"):
        MTAND(VARIABLES, WIDTH, span=0.0)
