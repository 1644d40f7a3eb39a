"""GRU-D: no time, no decay; endless time, the mean; what it says of real steps does not depend on what
comes later, or on padding."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lived import live
from torchcram.baselines.encoder import MaskedVectors, last_real
from torchcram.baselines.grud import GRUD, last_observed, since_observed

VARIABLES, WIDTH, BATCH, TIME = 4, 8, 3, 9

pytestmark = pytest.mark.usefixtures("float64")


def series(*, seed: int = 0, **changed: Tensor) -> MaskedVectors:
    generator = torch.Generator().manual_seed(seed)
    seen = (torch.rand(BATCH, TIME, VARIABLES, generator=generator) < 0.4).double()
    values = torch.randn(BATCH, TIME, VARIABLES, generator=generator) * seen
    plain = MaskedVectors(
        values=values,
        seen=seen,
        gap=torch.rand(BATCH, TIME, generator=generator),
        real=torch.ones(BATCH, TIME, dtype=torch.bool),
    )
    return replace(plain, **changed)


@pytest.fixture
def encoder(float64: None) -> GRUD:
    return live(GRUD(VARIABLES, WIDTH))


def steps(encoder: GRUD, given: MaskedVectors) -> Tensor:
    return encoder(given, steps=True, whole=False).steps


def test_elapsed_times_and_latest_values_are_those_of_a_loop():
    given = series()
    elapsed, latest = torch.zeros(BATCH, VARIABLES), torch.zeros(BATCH, VARIABLES)
    for t in range(TIME):
        before = given.seen[:, t - 1] if t else torch.zeros(BATCH, VARIABLES)
        elapsed = given.gap[:, t, None] + (1 - before) * elapsed
        latest = torch.where(given.seen[:, t] > 0, given.values[:, t], latest)
        torch.testing.assert_close(since_observed(given)[:, t], elapsed)
        torch.testing.assert_close(last_observed(given)[:, t], latest)


def test_without_time_nothing_decays(encoder):
    """All gaps zero: the imputed value is the latest one, and the state goes through an undecayed GRU."""
    given = series(gap=torch.zeros(BATCH, TIME))
    torch.testing.assert_close(encoder.imputed(given, since_observed(given)), last_observed(given))
    drive = encoder.inputs(torch.cat([last_observed(given), given.seen], -1))
    state = torch.zeros(BATCH, WIDTH)
    for t in range(TIME):
        state = encoder._updated(drive[:, t], state)
        torch.testing.assert_close(steps(encoder, given)[:, t], state)


def test_after_endless_time_the_mean_is_imputed_and_a_state_that_decays_is_forgotten(encoder):
    given = series(gap=torch.full((BATCH, TIME), 1e9))
    torch.testing.assert_close(encoder.imputed(given, since_observed(given)), given.seen * given.values)
    with torch.no_grad():
        encoder.state_decay.weight.abs_()
    # Nothing is left of earlier steps: each step says what it says alone.
    alone = replace(
        given, **{name: getattr(given, name)[:, 5:6] for name in ("values", "seen", "gap", "real")}
    )
    torch.testing.assert_close(steps(encoder, given)[:, 5], steps(encoder, alone)[:, 0])


def test_what_is_left_of_a_value_falls_with_time(encoder):
    seen = torch.zeros(1, TIME, VARIABLES)
    seen[:, 0] = 1
    given = MaskedVectors(
        values=seen.clone(), seen=seen, gap=torch.ones(1, TIME), real=torch.ones(1, TIME, dtype=torch.bool)
    )
    left = encoder.imputed(given, since_observed(given))
    assert (left.diff(dim=1) < 0).all()
    assert left.min() > 0


def test_it_is_torchs_gru_where_nothing_is_missing(encoder):
    given = series(seen=torch.ones(BATCH, TIME, VARIABLES), gap=torch.zeros(BATCH, TIME))
    theirs = torch.nn.GRU(2 * VARIABLES, WIDTH, batch_first=True)
    with torch.no_grad():
        for name, part in (("ih", encoder.inputs), ("hh", encoder.recurrent)):
            getattr(theirs, f"weight_{name}_l0").copy_(part.weight)
            getattr(theirs, f"bias_{name}_l0").copy_(part.bias)
    torch.testing.assert_close(steps(encoder, given), theirs(torch.cat([given.values, given.seen], -1))[0])


def test_no_step_changes_anything_before_it(encoder):
    ours, theirs = series(), series(seed=1)
    mixed = replace(
        ours,
        **{
            name: torch.cat([getattr(ours, name)[:, :5], getattr(theirs, name)[:, 5:]], 1)
            for name in ("values", "seen", "gap", "real")
        },
    )
    before, after = steps(encoder, ours), steps(encoder, mixed)
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert (after[:, 5] - before[:, 5]).abs().max() > 1e-3


def test_the_whole_is_the_last_real_step(encoder):
    real = torch.arange(TIME) < torch.tensor([TIME, 4, 1])[:, None]
    encoding = encoder(series(real=real), steps=True, whole=True)
    assert torch.equal(
        encoding.whole,
        torch.stack([encoding.steps[row, length - 1] for row, length in enumerate((TIME, 4, 1))]),
    )
    assert torch.equal(last_real(encoding.steps, real), encoding.whole)
