"""The gate is what its reference says, keeps its two inputs alone, and changes neither."""

import pytest
import torch
from torch import Tensor

from torchcram.ops.silu_gate import silu_gate, silu_gate_reference


def problem() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    value, gate, above = (
        3 * torch.randn(2, 5, 4, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    return value.requires_grad_(), gate.requires_grad_(), above


def results(function) -> list[Tensor]:
    value, gate, above = problem()
    output = function(value, gate)
    return [output, *torch.autograd.grad(output, (value, gate), above)]


def test_values_and_gradients_are_those_of_the_reference():
    for mine, theirs in zip(results(silu_gate), results(silu_gate_reference), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_its_inputs_and_the_gradient_from_above_stay_as_they_are():
    value, gate, above = problem()
    before = [tensor.detach().clone() for tensor in (value, gate, above)]
    output = silu_gate(value, gate)
    for _ in range(2):
        output.backward(above, retain_graph=True)
    assert all(
        torch.equal(tensor.detach(), old) for tensor, old in zip((value, gate, above), before, strict=True)
    )
    torch.testing.assert_close(
        value.grad, 2 * torch.autograd.grad(silu_gate_reference(value, gate), value, above)[0]
    )


def test_it_keeps_nothing_but_its_inputs():
    kept: list[Tensor] = []
    value, gate, _ = problem()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor
    ):
        silu_gate(value, gate)
    assert [tensor.data_ptr() for tensor in kept] == [value.data_ptr(), gate.data_ptr()]


def test_a_second_derivative_is_an_error_and_not_wrong():
    value, gate, _ = problem()
    (first,) = torch.autograd.grad(silu_gate(value, gate).square().sum(), gate, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_mixed_precision_is_that_of_the_reference():
    value, gate, _ = problem()
    assert torch.equal(silu_gate(value, gate.float()), silu_gate_reference(value, gate.float()))
