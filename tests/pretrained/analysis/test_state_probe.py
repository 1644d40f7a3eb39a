"""The probe with a memory of fixed size sees no later token, and is the plain probe where it has no
directions."""

import torch

from tiny_models import tiny_model
from torchcram.pretrained.analysis.moments import covariances, no_moments
from torchcram.pretrained.analysis.ridge import solve
from torchcram.pretrained.analysis.state_probe import DECAYS, LAGS, StateProbe, Summary, summary_of
from torchcram.pretrained.local_attention import local_attention
from torchcram.pretrained.sites import find_sites


def summary(directions: int) -> Summary:
    return Summary(directions=torch.randn(6, directions, dtype=torch.float64))


def test_features_are_inputs_lags_fading_averages_and_the_mean():
    x, made = torch.randn(9, 6, dtype=torch.float64), summary(2)
    features, short = made(x), x @ made.directions
    assert features.shape == (9, made.features)
    torch.testing.assert_close(features[:, :6], x)
    for place, lag in enumerate(LAGS):
        torch.testing.assert_close(features[lag:, 6 + 2 * place : 8 + 2 * place], short[:-lag])
    start = 6 + 2 * len(LAGS)
    for place, decay in enumerate(DECAYS):
        expected = (1 - decay) * sum(decay**age * short[7 - age] for age in range(8))
        torch.testing.assert_close(features[8, start + 2 * place : start + 2 * place + 2], expected)
    torch.testing.assert_close(features[:, -2:], torch.stack([short[: end + 1].mean(0) for end in range(9)]))


def test_no_feature_looks_at_a_later_token():
    x, made = torch.randn(9, 6, dtype=torch.float64), summary(2)
    changed = x.clone()
    changed[5:] += 1
    torch.testing.assert_close(made(x)[:5], made(changed)[:5], rtol=0, atol=1e-12)


def test_what_the_block_finds_nearby_comes_last():
    model = tiny_model("llama")
    local = local_attention(model, find_sites(model), reach=2)[0]
    x = torch.randn(9, find_sites(model)[0].width)
    directions = torch.randn(x.shape[1], 3)
    made, without = Summary(directions=directions, local=local), Summary(directions=directions)
    with torch.no_grad():
        features = made(x)
        assert features.shape == (9, made.features)
        torch.testing.assert_close(features, torch.cat((without(x), local(x)), 1))


def test_windows_shorter_than_a_lag_work():
    assert summary(2)(torch.randn(1, 6, dtype=torch.float64)).shape == (1, summary(2).features)


def test_without_directions_it_is_the_plain_probe():
    moments = no_moments(6, 3)
    moments.add(torch.randn(50, 6), torch.randn(50, 3))
    probe, x = solve(covariances(moments), strength=0.1), torch.randn(7, 6)
    plain = StateProbe(summary=Summary(directions=torch.zeros(6, 0)), linear=probe.float())
    torch.testing.assert_close(plain(x), probe.float()(x))


def test_the_directions_are_those_that_the_probe_uses():
    x = torch.randn(4000, 6, dtype=torch.float64)
    moments = no_moments(6, 3)
    moments.add(x, torch.stack((5 * x[:, 2], x[:, 4], 0.01 * x[:, 0]), 1))
    fit = covariances(moments)
    directions = summary_of(solve(fit, strength=1e-6), fit, directions=2).directions
    used = directions.square().sum(1) / directions.square().sum()
    assert used[[2, 4]].sum() > 0.99
