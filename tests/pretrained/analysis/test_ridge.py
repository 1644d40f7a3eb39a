"""Probes equal scikit-learn's to 1e-6, and their errors are those that a direct computation gives."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from torchcram.pretrained.analysis.moments import covariances, no_moments
from torchcram.pretrained.analysis.ridge import (
    GRID,
    LinearProbe,
    canonical_correlations,
    cca_bound,
    channel_errors,
    chosen_on,
    error,
    explained,
    rank_curve,
    require_tokens,
    solve,
)


def data(tokens: int, *, seed: int):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    x = (
        torch.randn(tokens, 6, generator=generator, dtype=torch.float64)
        * torch.tensor([3, 1, 1, 0.3, 0.1, 2], dtype=torch.float64)
        + 1.5
    )
    return x, x @ weight + torch.randn(tokens, 4, generator=generator, dtype=torch.float64)


def moments(x, y):
    found = no_moments(x.shape[1], y.shape[1])
    for some in range(0, len(x), 37):
        found.add(x[some : some + 37], y[some : some + 37])
    return covariances(found)


FIT, HELD, TEST = (data(tokens, seed=seed) for seed, tokens in ((0, 300), (1, 120), (2, 120)))


@pytest.mark.parametrize("strength", [1e-4, 0.1, 10.0])
def test_ridge_is_that_of_scikit_learn(strength):
    probe = solve(moments(*FIT), strength=strength)
    oracle = Ridge(alpha=strength * len(FIT[0])).fit(FIT[0].numpy(), FIT[1].numpy())
    np.testing.assert_allclose(probe.weight.T.numpy(), oracle.coef_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(probe(TEST[0]).numpy(), oracle.predict(TEST[0].numpy()), rtol=1e-6, atol=1e-6)


def test_the_chosen_strength_is_the_best_of_scikit_learn_on_held_out_data():
    probe = chosen_on(moments(*HELD), moments(*FIT))
    scale = float(moments(*FIT).xx.diagonal().mean())
    oracles = [Ridge(alpha=share * scale * len(FIT[0])).fit(FIT[0].numpy(), FIT[1].numpy()) for share in GRID]
    wrong = [
        float(np.square(oracle.predict(HELD[0].numpy()) - HELD[1].numpy()).sum(1).mean())
        for oracle in oracles
    ]
    best = oracles[int(np.argmin(wrong))]
    np.testing.assert_allclose(probe.weight.T.numpy(), best.coef_, rtol=1e-6, atol=1e-6)
    assert error(probe, moments(*HELD)) == pytest.approx(min(wrong), rel=1e-9)


def test_errors_from_sums_are_those_of_the_tokens():
    probe = solve(moments(*FIT), strength=0.01)
    wrong = (probe(TEST[0]) - TEST[1]).square().mean(0)
    torch.testing.assert_close(channel_errors(probe, moments(*TEST)), wrong)
    assert error(probe, moments(*TEST)) == pytest.approx(float(wrong.sum()))
    output = torch.randn(4, 3, dtype=torch.float64)
    behind = ((probe(TEST[0]) - TEST[1]) @ output).square().sum(1).mean()
    assert error(probe, moments(*TEST), output=output) == pytest.approx(float(behind))
    variance = (TEST[1] - TEST[1].mean(0)).square().sum(1).mean()
    assert explained(probe, moments(*TEST)) == pytest.approx(float(1 - wrong.sum() / variance))


def test_the_probe_of_a_projection_is_the_projection_of_the_probe():
    output, bias = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    direct = solve(moments(FIT[0], FIT[1] @ output + bias), strength=0.2)
    through = solve(moments(*FIT), strength=0.2).then(output, bias)
    torch.testing.assert_close(through.weight, direct.weight)
    torch.testing.assert_close(through.bias, direct.bias)


def test_more_ranks_explain_more_and_all_ranks_are_the_probe():
    probe = solve(moments(*FIT), strength=1e-3)
    curve = rank_curve(probe, moments(*FIT), moments(*FIT), ranks=(1, 2, 3, 4))
    assert list(curve.values()) == sorted(curve.values())
    assert curve[4] == pytest.approx(explained(probe, moments(*FIT)))
    # A planted rank of two is found.
    x = FIT[0]
    y = x[:, :2] @ torch.randn(2, 4, dtype=torch.float64)
    planted = rank_curve(solve(moments(x, y), strength=1e-9), moments(x, y), moments(x, y), ranks=(1, 2))
    assert planted[2] == pytest.approx(1.0, abs=1e-6)
    assert planted[1] < 0.999


def test_canonical_correlations_are_the_cosines_between_the_spaces_of_both():
    bases = [np.linalg.qr(part.numpy() - part.numpy().mean(0))[0] for part in FIT]
    oracle = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    np.testing.assert_allclose(canonical_correlations(moments(*FIT)).numpy(), oracle, atol=1e-9)


def test_the_bound_is_zero_for_a_linear_map_and_one_for_noise():
    x = torch.randn(20_000, 3, dtype=torch.float64)
    linear = canonical_correlations(moments(x, x @ torch.randn(3, 3, dtype=torch.float64)))
    assert cca_bound(linear, width=3) == pytest.approx(0.0, abs=1e-9)
    noise = canonical_correlations(moments(x, torch.randn(20_000, 3, dtype=torch.float64)))
    # Each squared correlation of independent channels is about 3 / 20,000 on average; five times as much is
    # allowed.
    assert cca_bound(noise, width=3) > 1 - 15 / 20_000
    # A channel without variance cannot be correlated.
    assert cca_bound(linear[:2], width=3) == pytest.approx(1 / 3)


def test_the_bound_bounds_the_error_of_the_best_linear_map():
    fit = moments(*FIT)
    whitened = FIT[1] @ torch.linalg.inv(torch.linalg.cholesky(fit.yy)).T
    best = solve(moments(FIT[0], whitened), strength=1e-12)
    assert (
        error(best, moments(FIT[0], whitened)) / 4 <= cca_bound(canonical_correlations(fit), width=4) + 1e-9
    )


def test_too_few_tokens_are_refused_with_the_number_needed():
    with pytest.raises(
        ValueError,
        match=(
            r"1,151 fit tokens are too few for probes with 576 inputs: give at least 1,152 \(better "
            r"57,600\)"
        ),
    ):
        require_tokens(1151, 576)
    require_tokens(1152, 576)


def test_a_probe_in_float32_predicts_the_same():
    probe = LinearProbe(
        weight=torch.randn(3, 2, dtype=torch.float64), bias=torch.randn(2, dtype=torch.float64)
    )
    x = torch.randn(5, 3)
    torch.testing.assert_close(probe.float()(x), probe(x).float())
