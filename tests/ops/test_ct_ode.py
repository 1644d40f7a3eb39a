"""The inner integrator is explicit Euler: first order in its step, and exact where the answer is known."""

import pytest
import torch

from torchcram.ops.ct_ode import ct_ode_step


def problem(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state, drive, gate = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    return [state, drive, gate, torch.randn(5, 5, generator=generator, dtype=torch.float64)]


@pytest.mark.parametrize("seed", range(3))
def test_the_error_falls_with_the_first_power_of_the_step(seed):
    fine = ct_ode_step(*problem(seed), steps=20_000)
    steps = torch.tensor([8, 16, 32, 64, 128])
    errors = torch.stack([(ct_ode_step(*problem(seed), steps=int(k)) - fine).norm() for k in steps])
    x, y = -steps.double().log(), errors.log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert slope.item() == pytest.approx(1.0, abs=0.15)


def test_without_recurrence_it_is_exact():
    """``dh/ds = sigmoid(gate) tanh(drive)`` is constant: any number of steps integrates it exactly."""
    state, drive, gate, recurrent = problem()
    for steps in (1, 3):
        moved = ct_ode_step(state, drive, gate, torch.zeros_like(recurrent), steps=steps)
        torch.testing.assert_close(moved, state + gate.sigmoid() * drive.tanh(), rtol=0, atol=1e-12)


def test_one_step_is_the_formula_of_the_paper():
    state, drive, gate, recurrent = problem()
    by_hand = state + gate.sigmoid() * torch.tanh(torch.einsum("ij,bj->bi", recurrent, state) + drive)
    torch.testing.assert_close(
        ct_ode_step(state, drive, gate, recurrent, steps=1), by_hand, rtol=0, atol=1e-12
    )


def test_a_closed_gate_keeps_the_state():
    state, drive, gate, recurrent = problem()
    torch.testing.assert_close(
        ct_ode_step(state, drive, torch.full_like(gate, -50.0), recurrent, steps=4), state, rtol=0, atol=1e-12
    )


def test_gradients_are_those_of_finite_differences():
    arguments = [tensor.requires_grad_() for tensor in problem()]
    assert torch.autograd.gradcheck(lambda *all_of: ct_ode_step(*all_of, steps=3), arguments)
