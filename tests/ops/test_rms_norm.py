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
    return (
        (size * x).requires_grad_(),
        torch.rand(shape[-1], generator=generator, dtype=torch.float64).requires_grad_(),
        above,
    )


def results(norm, x: Tensor, weight: Tensor | None, above: Tensor) -> list[Tensor]:
    output = norm(x, weight)
    return [
        output,
        *torch.autograd.grad(output, [tensor for tensor in (x, weight) if tensor is not None], above),
    ]


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
    for mine, theirs in zip(
        results(rms_norm, x, weight, above), results(rms_norm_reference, x, weight, above), strict=True
    ):
        torch.testing.assert_close(mine, theirs, **EXACT)
    assert fast


@given(size=st.floats(1e-12, 1e12), seed=st.integers(0, 99))
def test_however_large_or_small_the_input(size, seed):
    x, weight, above = problem((3, 4), size=size, seed=seed)
    for mine, theirs in zip(
        results(rms_norm, x, weight, above), results(rms_norm_reference, x, weight, above), strict=True
    ):
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


def test_a_pass_without_gradients_takes_the_same_values_to_the_last_bit(fast):
    x, weight, _ = (tensor.detach().float() for tensor in problem((50, 64)))
    with torch.no_grad():
        silent = rms_norm(x, weight)
    assert torch.equal(rms_norm(x.requires_grad_(), weight), silent)
    assert len(fast) == 1, "autograd is asked where there are gradients alone"


@pytest.mark.parametrize("weighted", [True, False])
def test_gradients_stay_in_full_precision_where_the_backward_pass_runs_under_autocast(weighted):
    x, weight, above = (tensor.detach().float() for tensor in problem((64, 256)))
    weight, x = weight.requires_grad_() if weighted else None, x.requires_grad_()
    plain = results(rms_norm, x, weight, above + x.detach())
    with torch.autocast("cpu", torch.bfloat16):
        cast = results(rms_norm, x, weight, above + x.detach())
    assert all(torch.equal(one, other) for one, other in zip(plain, cast, strict=True))


def test_second_derivatives_are_those_of_the_reference():
    x, weight, above = problem((3, 4))

    def twice(norm) -> list[Tensor]:
        first = torch.autograd.grad((norm(x, weight) * above).square().sum(), (x, weight), create_graph=True)
        return list(torch.autograd.grad(sum(part.square().sum() for part in first), (x, weight)))

    for mine, theirs in zip(twice(rms_norm), twice(rms_norm_reference), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


def test_it_can_be_transformed_like_any_function():
    x, weight, _ = problem((3, 4))

    def loss(norm):
        return lambda row: norm(row, weight).pow(3).sum()

    mine, theirs = (
        torch.func.vmap(torch.func.grad(loss(norm)))(x.detach()) for norm in (rms_norm, rms_norm_reference)
    )
    torch.testing.assert_close(mine, theirs, **EXACT)


def test_its_result_may_be_changed_in_place():
    x, _, above = problem((3, 4))
    rms_norm(x).mul_(2).backward(above)
    torch.testing.assert_close(x.grad, torch.autograd.grad(2 * rms_norm_reference(x), x, above)[0], **EXACT)


def test_the_module_has_the_parameters_of_pytorchs():
    mine, theirs = RMSNorm(4), nn.RMSNorm(4)
    theirs.load_state_dict({name: value.copy_(torch.rand(4)) for name, value in mine.state_dict().items()})
    x = torch.randn(3, 4)
    torch.testing.assert_close(mine(x), theirs(x))
