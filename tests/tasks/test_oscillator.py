"""The oscillator is exact over any gap, and nobody who sees the same observations predicts better than its
Kalman filter.

Statistical checks allow five standard errors, computed from the number of draws.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchcram.tasks.oscillator import Oscillator, kalman_predictions

EXACT = 1e-12
DRAWS = 20_000

gaps = st.floats(0.0, 20.0)


def oscillator(
    batch: int = 1,
    *,
    frequency: float = 1.3,
    damping: float = 0.05,
    phase: float = 0.4,
    rest: float = 0.7,
    error: float = 0.1,
) -> Oscillator:
    def fill(value: float) -> Tensor:
        return torch.full((batch,), value, dtype=torch.float64)

    return Oscillator(
        frequency=fill(frequency),
        damping=fill(damping),
        phase=fill(phase),
        stationary_std=rest,
        observation_std=error,
    )


def varied(batch: int, *, rest: float = 0.7, error: float = 0.1) -> Oscillator:
    draws = torch.rand(3, batch, dtype=torch.float64)
    return Oscillator(
        frequency=0.5 + 1.5 * draws[0],
        damping=0.01 + 0.3 * draws[1],
        phase=2 * torch.pi * draws[2],
        stationary_std=rest,
        observation_std=error,
    )


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def path_of_gaps(batch: int, time: int) -> Tensor:
    return 0.1 * torch.rand(batch, time, dtype=torch.float64).clamp_min(1e-3).pow(-2 / 3)


@given(frequency=st.floats(-3, 3), damping=st.floats(0, 1), gap=gaps)
def test_advance_is_the_matrix_exponential(frequency, damping, gap):
    process = oscillator(frequency=frequency, damping=damping)
    matrix = torch.tensor([[-damping, -frequency], [frequency, -damping]], dtype=torch.float64)
    state = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    torch.testing.assert_close(
        process.advance(state, column(gap)),
        state @ torch.linalg.matrix_exp(matrix * gap).T,
        rtol=0,
        atol=1e-10,
    )


@given(gap=st.floats(1e-3, 20.0), damping=st.floats(1e-3, 1.0))
def test_noise_variance_is_the_integral_of_the_decayed_noise(gap, damping):
    process = oscillator(damping=damping)
    age = torch.linspace(0, gap, 20_001, dtype=torch.float64)
    power = 2 * damping * process.stationary_std**2
    integral = torch.trapezoid(power * torch.exp(-2 * damping * age), age)
    torch.testing.assert_close(process.noise_variance(column(gap)), integral[None], rtol=1e-6, atol=0)


@given(first=gaps, second=gaps, damping=st.floats(0.0, 1.0))
def test_two_gaps_are_one_gap_in_mean_and_in_variance(first, second, damping):
    process, state = oscillator(damping=damping), torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    whole = column(first + second)
    torch.testing.assert_close(
        process.advance(process.advance(state, column(first)), column(second)),
        process.advance(state, whole),
        rtol=0,
        atol=EXACT,
    )
    carried = torch.exp(-2 * damping * column(second)) * process.noise_variance(column(first))
    torch.testing.assert_close(
        carried + process.noise_variance(column(second)), process.noise_variance(whole), rtol=0, atol=EXACT
    )


def test_no_time_no_change_and_for_ever_means_rest():
    process = oscillator()
    state = process.start()
    assert torch.equal(process.advance(state, column(0.0)), state)
    assert process.noise_variance(column(0.0)).item() == 0
    assert process.noise_variance(column(1e4)).item() == pytest.approx(process.stationary_std**2)
    assert process.advance(state, column(1e4)).abs().max() < EXACT


def test_the_start_lies_on_the_unit_circle_at_the_phase():
    start = oscillator(phase=2.0).start()[0]
    assert start.norm().item() == pytest.approx(1.0)
    assert torch.atan2(start[1], start[0]).item() == pytest.approx(2.0)


def test_a_positive_frequency_turns_counter_clockwise():
    quarter = oscillator(frequency=1.0, damping=0.0, phase=0.0).advance(
        column(1.0, 0.0)[None], column(torch.pi / 2)
    )
    torch.testing.assert_close(quarter, column(0.0, 1.0)[None], rtol=0, atol=EXACT)


def test_the_variance_along_a_path_is_that_of_its_gaps():
    process, path = varied(3), path_of_gaps(3, 5)
    for t in range(5):
        torch.testing.assert_close(
            process.noise_variance_over(path)[:, t], process.noise_variance(path[:, t]), rtol=0, atol=EXACT
        )


def test_without_noise_a_simulation_is_the_mean(seeded):
    process, path = varied(4, rest=0.0, error=0.0), path_of_gaps(4, 9)
    observations = process.simulate(path, generator=seeded(1))
    for t, time in enumerate(path.cumsum(1).unbind(1)):
        torch.testing.assert_close(
            observations[:, t], process.advance(process.start(), time), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    "steps", [[2.0], [1.0, 1.0], [0.0, 0.3, 1.7]], ids=["one gap", "two half gaps", "uneven gaps"]
)
def test_simulated_moments_are_those_of_one_gap(steps, seeded):
    process = oscillator(DRAWS, error=0.2)
    last = process.simulate(column(*steps).expand(DRAWS, -1).contiguous(), generator=seeded(2))[:, -1]
    total = torch.full((DRAWS,), 2.0, dtype=torch.float64)
    mean = process.advance(process.start(), total)[0]
    variance = (process.noise_variance(total)[0] + process.observation_std**2).item()
    assert (last.mean(0) - mean).abs().max() < 5 * (variance / DRAWS) ** 0.5
    assert (last.var(0) - variance).abs().max() < 5 * variance * (2 / DRAWS) ** 0.5
    assert torch.corrcoef(last.T)[0, 1].abs() < 5 / DRAWS**0.5


def test_observation_errors_do_not_enter_the_process(seeded):
    """With damping 0 there is no process noise: two observations differ from the mean by independent
    errors of the stated size."""
    process = oscillator(DRAWS, damping=0.0, error=0.3)
    path = torch.ones(DRAWS, 2, dtype=torch.float64)
    mean = torch.stack(
        [process.advance(process.start(), path[:, 0]), process.advance(process.start(), 2 * path[:, 0])], 1
    )
    errors = process.simulate(path, generator=seeded(3)) - mean
    assert (errors.var(0) - 0.09).abs().max() < 5 * 0.09 * (2 / DRAWS) ** 0.5
    assert torch.corrcoef(errors[..., 0].T)[0, 1].abs() < 5 / DRAWS**0.5


def test_the_generator_is_the_only_source_of_randomness(seeded):
    process, path = varied(2), path_of_gaps(2, 6)
    before = torch.random.get_rng_state()
    one, same, other = (process.simulate(path, generator=seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def conditional_means(process: Oscillator, observations: Tensor, gaps: Tensor, horizons: Tensor) -> Tensor:
    """What Gaussian conditioning on all observations so far predicts, by brute force.

    In the complex plane the process has circular noise.
    """
    times, start = gaps.cumsum(1), torch.view_as_complex(process.start())
    rate = torch.complex(-process.damping, process.frequency)[:, None]
    predictions = []
    for t in range(gaps.shape[1]):
        moments = torch.cat([times[:, : t + 1], times[:, t : t + 1] + horizons[:, t : t + 1]], 1)
        mean = start[:, None] * torch.exp(rate * moments)
        lag = moments[:, :, None] - moments[:, None, :]
        earlier = torch.minimum(moments[:, :, None], moments[:, None, :])
        turn = torch.exp(
            torch.complex(-process.damping[:, None, None] * lag.abs(), process.frequency[:, None, None] * lag)
        )
        covariance = (
            process.stationary_std**2 * -torch.expm1(-2 * process.damping[:, None, None] * earlier) * turn
        )
        seen = covariance[:, :-1, :-1] + process.observation_std**2 * torch.eye(t + 1, dtype=torch.float64)
        surprise = torch.view_as_complex(observations[:, : t + 1].contiguous()) - mean[:, :-1]
        predictions.append(
            mean[:, -1] + (covariance[:, -1:, :-1] @ torch.linalg.solve(seen, surprise[..., None]))[:, 0, 0]
        )
    return torch.view_as_real(torch.stack(predictions, 1))


def test_kalman_is_the_conditional_mean(seeded):
    process, path = varied(6), path_of_gaps(6, 13)
    path[:, 0] = 0.0
    observations = process.simulate(path, generator=seeded(7)).double()
    gaps, horizons = path[:, :-1], path[:, 1:]
    expected = conditional_means(process, observations[:, :-1], gaps, horizons)
    torch.testing.assert_close(
        kalman_predictions(process, observations[:, :-1], gaps, horizons), expected, rtol=0, atol=1e-9
    )


def predicted_variance(process: Oscillator, gaps: Tensor, horizons: Tensor) -> Tensor:
    """The variance that the filter expects of its own prediction error, per coordinate, in information
    form."""
    variance, expected = torch.zeros_like(process.damping), []
    for gap, horizon in zip(gaps.unbind(1), horizons.unbind(1), strict=True):
        variance = torch.exp(-2 * process.damping * gap) * variance + process.noise_variance(gap)
        variance = 1 / (1 / variance + 1 / process.observation_std**2)
        expected.append(
            torch.exp(-2 * process.damping * horizon) * variance
            + process.noise_variance(horizon)
            + process.observation_std**2
        )
    return torch.stack(expected, 1)


@pytest.fixture(scope="module")
def forecast() -> tuple[Oscillator, Tensor, Tensor, Tensor]:
    """Many sequences with the same gaps: the process, the gaps, the observations, and the Kalman
    prediction errors."""
    process, generator = oscillator(DRAWS, damping=0.1), torch.Generator().manual_seed(8)
    path = column(0.0, 0.5, 0.2, 3.0, 0.1, 1.0, 0.4).expand(DRAWS, -1).contiguous()
    observations = process.simulate(path, generator=generator).double()
    predictions = kalman_predictions(process, observations[:, :-1], path[:, :-1], path[:, 1:])
    return process, path, observations, predictions - observations[:, 1:]


def test_the_error_of_kalman_is_the_variance_it_predicts(forecast):
    process, path, _, errors = forecast
    expected = predicted_variance(process, path[:, :-1], path[:, 1:])[0]
    measured = errors.square().mean((0, 2))
    assert ((measured - expected).abs() / expected).max() < 5 * (1 / DRAWS) ** 0.5
    assert (errors.mean(0).abs() / expected[:, None].sqrt()).max() < 5 / DRAWS**0.5


def test_what_was_seen_says_nothing_about_the_error_of_kalman(forecast):
    """Orthogonality: the error is uncorrelated with every observation up to the prediction, so nothing is
    left to be used."""
    _, _, observations, errors = forecast
    time = errors.shape[1]
    for t in range(time):
        seen = observations[:, : t + 1].flatten(1)
        together = torch.corrcoef(torch.cat([seen, errors[:, t]], 1).T)[:-2, -2:]
        assert together.abs().max() < 5 / DRAWS**0.5


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"frequency": 1.2}, id="frequency"),
        pytest.param({"damping": 0.2}, id="damping"),
        pytest.param({"phase": 0.6}, id="phase"),
        pytest.param({"error": 0.2}, id="observation noise too large"),
        pytest.param({"error": 0.05}, id="observation noise too small"),
    ],
)
def test_kalman_with_a_wrong_belief_predicts_worse(changed, forecast):
    _, path, observations, errors = forecast
    wrong = oscillator(DRAWS, **{"damping": 0.1, **changed})
    predictions = kalman_predictions(wrong, observations[:, :-1], path[:, :-1], path[:, 1:])
    assert (predictions - observations[:, 1:]).square().mean() > errors.square().mean()


def test_simple_predictors_are_worse(forecast):
    process, path, observations, errors = forecast
    target, floor = observations[:, 1:], errors.square().mean()
    rotated = torch.stack(
        [process.advance(observations[:, t], path[:, t + 1]) for t in range(target.shape[1])], 1
    )
    from_start = torch.stack(
        [process.advance(process.start(), time) for time in path.cumsum(1)[:, 1:].unbind(1)], 1
    )
    for predictions in (
        observations[:, :-1],
        rotated,
        from_start,
        0.97 * (errors + target),
        1.03 * (errors + target),
    ):
        assert (predictions - target).square().mean() > floor


def test_kalman_does_not_look_ahead(seeded):
    process, path = varied(3), path_of_gaps(3, 8)
    observations = process.simulate(path, generator=seeded(9)).double()
    changed = observations.clone()
    changed[:, 5] += 1.0
    before, after = (
        kalman_predictions(process, seen, path, torch.ones_like(path)) for seen in (observations, changed)
    )
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5], after[:, 5])


@pytest.mark.parametrize("rest", [0.0, 0.7])
def test_kalman_without_observation_noise_believes_the_last_observation(rest, seeded):
    process, path = varied(3, rest=rest, error=0.0), path_of_gaps(3, 5)
    path[:, 0] = 0.0
    observations = process.simulate(path, generator=seeded(10)).double()
    predictions = kalman_predictions(process, observations, path, torch.ones_like(path))
    expected = torch.stack(
        [process.advance(observations[:, t], torch.ones(3, dtype=torch.float64)) for t in range(5)], 1
    )
    torch.testing.assert_close(predictions, expected, rtol=0, atol=1e-6)


def test_an_oscillator_is_a_value():
    changed = replace(oscillator(), stationary_std=2.0)
    assert changed.noise_variance(column(1e4)).item() == pytest.approx(4.0)
