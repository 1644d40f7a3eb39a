"""The fast scan is the slow one: values, final state and every gradient, for every length around the chunk
size, real and complex."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchcram.ops.scan import chunked, scan, scan_reference

LENGTHS = [1, 2, 3, 7, 63, 64, 65, 257]
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def problem(
    time: int, *, dtype: torch.dtype = torch.float64, batch: int = 2, size: int = 3, seed: int = 0
) -> list[Tensor]:
    """Decays of modulus 0 to 1, both ends included; inputs; an initial state."""
    generator = torch.Generator().manual_seed(seed)
    decay = torch.rand(batch, time, size, generator=generator, dtype=torch.float64)
    decay = torch.where(decay < 0.1, 0.0, torch.where(decay > 0.8, 1.0, decay)).to(dtype)
    if dtype.is_complex:
        decay = decay * torch.polar(
            torch.ones(decay.shape, dtype=torch.float64),
            6.3 * torch.rand(decay.shape, generator=generator, dtype=torch.float64),
        )
    inputs, initial = (
        torch.randn(*shape, generator=generator, dtype=dtype)
        for shape in ((batch, time, size), (batch, size))
    )
    return [tensor.requires_grad_() for tensor in (decay, inputs, initial)]


def gradients(function, arguments: list[Tensor]) -> list[Tensor]:
    states = function(*arguments)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(9), dtype=states.dtype)
    return [states, *torch.autograd.grad((states * weights).real.sum(), arguments)]


@pytest.mark.parametrize("time", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_states_and_gradients_are_those_of_the_reference(time, dtype):
    arguments = problem(time, dtype=dtype)
    for fast, slow in zip(gradients(scan, arguments), gradients(scan_reference, arguments), strict=True):
        torch.testing.assert_close(fast, slow, **EXACT)


@pytest.mark.parametrize("time", LENGTHS)
def test_backwards_is_forwards_seen_from_the_other_end(time):
    decay, inputs, initial = (tensor.detach() for tensor in problem(time))
    (backwards,) = chunked.run((decay,), (inputs,), (initial,), backwards=True)
    torch.testing.assert_close(
        backwards, scan_reference(decay.flip(1), inputs.flip(1), initial).flip(1), **EXACT
    )


@given(time=st.integers(1, 40), batch=st.integers(0, 3), size=st.integers(1, 3), seed=st.integers(0, 9))
def test_any_shape_will_do(time, batch, size, seed):
    arguments = problem(time, batch=batch, size=size, seed=seed)
    for fast, slow in zip(gradients(scan, arguments), gradients(scan_reference, arguments), strict=True):
        torch.testing.assert_close(fast, slow, **EXACT)


def test_no_steps_no_states():
    decay, inputs, initial = problem(0)
    assert scan(decay, inputs, initial).shape == scan_reference(decay, inputs, initial).shape == (2, 0, 3)
    assert torch.autograd.grad(scan(decay, inputs, initial).sum(), initial)[0].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_gradients_are_those_of_finite_differences(dtype):
    assert torch.autograd.gradcheck(scan, problem(5, dtype=dtype))


@pytest.mark.parametrize("time", LENGTHS)
def test_the_arguments_are_left_as_they_were(time):
    arguments = problem(time)
    copies = [argument.detach().clone() for argument in arguments]
    scan(*arguments)
    for argument, copy in zip(arguments, copies, strict=True):
        assert torch.equal(argument, copy)


def test_it_is_the_recurrence():
    """By hand: 2, then 0.5 * 2 + 1 = 2, then 0 * 2 + 3 = 3, then 1 * 3 - 1 = 2."""
    decay, inputs = (
        torch.tensor(values)[None, :, None] for values in ([0.25, 0.5, 0.0, 1.0], [0.0, 1.0, 3.0, -1.0])
    )
    assert scan(decay, inputs, torch.tensor([[8.0]])).flatten().tolist() == [2.0, 2.0, 3.0, 2.0]
    assert scan_reference(decay, inputs, torch.tensor([[8.0]])).flatten().tolist() == [2.0, 2.0, 3.0, 2.0]


@pytest.mark.parametrize("rate", [1e-6, 1.0, 1e3])
def test_no_gap_is_too_short_or_too_long_in_single_precision(rate):
    gap = torch.tensor([0.0, 1e-8, 0.1, 1.0, 1e2, 1e4]).repeat(20)[None, :, None]
    rates = torch.full((1, 120, 1), rate, requires_grad=True)
    inputs = torch.ones(1, 120, 1, dtype=torch.complex64, requires_grad=True)
    turn = torch.polar(torch.ones_like(gap), 3.0 * gap)

    def run(function):
        return gradients(
            lambda rates, inputs: function(torch.exp(-rates * gap) * turn, inputs, inputs[:, 0]),
            [rates, inputs],
        )

    for fast, slow in zip(run(scan), run(scan_reference), strict=True):
        assert fast.isfinite().all()
        torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-3)


class Allocated(TorchDispatchMode):
    """Sums up, in bytes, what operations make anew: no less than the peak of memory."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation, and count results that are not views of what went in."""
        result = func(*args, **(kwargs or {}))
        given = {
            tensor.untyped_storage().data_ptr()
            for tensor in tree_leaves((args, kwargs))
            if isinstance(tensor, Tensor)
        }
        made = [
            tensor
            for tensor in tree_leaves(result)
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given
        ]
        self.total += sum(tensor.untyped_storage().nbytes() for tensor in made)
        return result


def allocated(function, time: int) -> int:
    arguments = problem(time, batch=1)
    with Allocated() as memory:
        torch.autograd.grad(function(*arguments).sum(), arguments)
    return memory.total


def test_memory_is_linear_in_the_length():
    assert allocated(scan, 8192) / allocated(scan, 1024) == pytest.approx(8, rel=0.1)


def test_what_counts_memory_sees_a_square():
    def square(decay, inputs, initial):
        return (
            torch.ones(inputs.shape[1], inputs.shape[1], dtype=inputs.dtype) @ (decay * inputs)[0] + initial
        )

    assert allocated(square, 2048) / allocated(square, 256) > 16
