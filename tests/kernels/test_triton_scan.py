"""The Triton scan computes what the chunked one does, forwards and backwards, run as Python by Triton's
interpreter."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchcram.ops.scan import chunked

pytest.importorskip("triton", reason="make test-kernels installs triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1: make test-kernels"
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planes(parts, *shape, seed, scale=1.0):
    return tuple(scale * drawn(*shape, seed=seed + part) for part in range(parts))


@settings(max_examples=12)
@given(
    parts=st.integers(1, 2),
    batch=st.integers(1, 2),
    time=st.sampled_from([0, 1, 5, 63, 64, 65, 130]),
    size=st.sampled_from([1, 5, 32, 40]),
    backwards=st.booleans(),
    scale=st.sampled_from([0.0, 0.1, 0.6]),
)
def test_states_equal_those_of_the_chunks(parts, batch, time, size, backwards, scale):
    from torchcram.ops.scan.triton import run

    given_planes = [
        planes(parts, batch, time, size, seed=0, scale=scale),
        planes(parts, batch, time, size, seed=10),
        planes(parts, batch, size, seed=20),
    ]
    ours, theirs = (function(*given_planes, backwards=backwards) for function in (run, chunked.run))
    assert len(ours) == parts
    for mine, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_are_those_of_the_chunks(monkeypatch, parts):
    from torchcram.ops.scan import triton

    tensors = [
        plane.requires_grad_()
        for group in (planes(parts, 2, 70, 5, seed=0, scale=0.5), planes(parts, 2, 70, 5, seed=10))
        for plane in group
    ]
    tensors += [plane.requires_grad_() for plane in planes(parts, 2, 5, seed=20)]

    def gradients():
        states = chunked.scan_planes(*(tuple(tensors[parts * k : parts * (k + 1)]) for k in range(3)))
        return torch.autograd.grad(
            sum((state * drawn(*state.shape, seed=30)).sum() for state in states), tensors
        )

    expected = gradients()
    used = []
    monkeypatch.setattr(
        chunked, "runner", lambda plane: lambda *args, **kwargs: used.append(1) or triton.run(*args, **kwargs)
    )
    for mine, theirs in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    assert len(used) == 2
