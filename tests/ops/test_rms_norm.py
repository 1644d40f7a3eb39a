"""The normalisation is PyTorch's, values and gradients, and takes fewer passes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from torchcram.ops import rms_norm as module
from torchcram.ops.rms_norm import RMSNorm, rms_norm, rms_norm_reference

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def problem(shape: tuple[int, ...], *, size: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, above = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return (size * x).requires_grad_(), torch.rand(shape[-1], generator=generator, dtype=torch.float64).requires_grad_(), above


def results(norm, x: Tensor, weight: Tensor | None, above: Tensor) -> list[Tensor]:
    output = norm(x, weight)
    return [output, *torch.autograd.grad(output, [tensor for tensor in (x, weight) if tensor is not None], above)]


@pytest.fixture
def fast(monkeypatch):
    """Counts the calls that do not go to PyTorch's own."""
    calls = []
    apply = module._RMSNorm.apply
    monkeypatch.setattr(module._RMSNorm, "apply", lambda *given: (calls.append(1), apply(*given))[1])
    return calls


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(5,), (3, 1), (2, 7, 4), (0, 4), (2, 3, 2, 8)])
def test_values_and_gradients_are_those_of_the_reference(shape, weighted, fast):
    x, weight, above = problem(shape)
    weight = weight if weighted else None
    for mine, theirs in zip(results(rms_norm, x, weight, above), results(rms_norm_reference, x, weight, above), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)
    assert fast


@given(size=st.floats(1e-12, 1e12), seed=st.integers(0, 99))
def test_however_large_or_small_the_input(size, seed):
    x, weight, above = problem((3, 4), size=size, seed=seed)
    for mine, theirs in zip(results(rms_norm, x, weight, above), results(rms_norm_reference, x, weight, above), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=0.0 if size < 1 else 1e-9)


def test_nothing_has_no_direction():
    x = torch.zeros(2, 4, requires_grad=True)
    rms_norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_coarse_numbers_and_mixed_ones_are_left_to_pytorch(fast):
    x = torch.randn(2, 4, dtype=torch.bfloat16, requires_grad=True)
    assert torch.equal(rms_norm(x), rms_norm_reference(x))
    weight = torch.rand(4, dtype=torch.float64)
    assert torch.equal(rms_norm(x.float(), weight), rms_norm_reference(x.float(), weight))
    assert not fast


def test_without_gradients_it_is_pytorchs_own(fast):
    with torch.no_grad():
        rms_norm(torch.randn(2, 4))
    assert not fast


def test_a_second_derivative_is_an_error_and_not_wrong():
    x, weight, _ = problem((2, 4))
    (first,) = torch.autograd.grad(rms_norm(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_the_module_has_the_parameters_of_pytorchs():
    mine, theirs = RMSNorm(4), nn.RMSNorm(4)
    theirs.load_state_dict({name: value.copy_(torch.rand(4)) for name, value in mine.state_dict().items()})
    x = torch.randn(3, 4)
    torch.testing.assert_close(mine(x), theirs(x))
