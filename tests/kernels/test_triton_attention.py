"""The Triton kernels compute what the PyTorch tiles do: run as Python by Triton's interpreter, so that no
GPU is needed."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchcram.ops.routed_attention.tiled import tiled_attention

pytest.importorskip("triton", reason="make test-kernels installs triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1: make test-kernels"
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(*, batch=2, heads=2, packed=5, length=40, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    end = torch.randint(1, length + 1, (batch, packed), generator=generator).sort(1).values
    tensors = [
        drawn(batch, heads, count, size, seed=seed + index).requires_grad_()
        for index, count in enumerate((packed, length, length))
    ]
    return tensors, end


def results(function, tensors, end, **options):
    """Return outputs, log-sum-exps, and the gradients of a mixture of both."""
    output, lse = function(*tensors, end, **options)
    loss = (output * drawn(*output.shape, seed=7).to(output)).sum() + (
        lse * drawn(*lse.shape, seed=8).to(lse)
    ).sum()
    return [output, lse, *torch.autograd.grad(loss, tensors)]


def compare(tensors, end, *, splits, window, **tolerance):
    from torchcram.ops.routed_attention.triton import triton_attention

    ours = results(triton_attention, tensors, end, window=window, splits=splits)
    for mine, theirs in zip(ours, results(tiled_attention, tensors, end, window=window), strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 2),
    packed=st.integers(1, 70),
    length=st.integers(1, 150),
    size=st.sampled_from([3, 8, 16, 33]),
    window=st.one_of(st.none(), st.integers(1, 160)),
    splits=st.integers(1, 4),
)
def test_values_and_gradients_equal_those_of_the_tiles(batch, heads, packed, length, size, window, splits):
    tensors, end = inputs(batch=batch, heads=heads, packed=packed, length=length, size=size)
    compare(tensors, end, splits=splits, window=window, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [None, 7])
def test_large_scores_stay_finite(window):
    tensors, end = inputs(packed=40, length=90)
    compare(
        [300 * tensors[0].detach().requires_grad_(), *tensors[1:]],
        end,
        splits=3,
        window=window,
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 1e-2)])
def test_other_precisions_are_as_close_as_they_can_be(dtype, tolerance):
    tensors, end = inputs(packed=40, length=90, size=16)
    compare(
        [tensor.detach().to(dtype).requires_grad_() for tensor in tensors],
        end,
        splits=2,
        window=None,
        rtol=tolerance,
        atol=tolerance,
    )


@pytest.mark.parametrize(("batch", "packed"), [(0, 3), (2, 0)])
def test_nothing_asked_is_nothing_answered(batch, packed):
    tensors, end = inputs(batch=batch, packed=packed)
    compare(tensors, end, splits=1, window=None)


def test_what_lies_in_the_memory_past_the_end_is_never_touched():
    from torchcram.ops.routed_attention.triton import triton_attention

    (query, key, value), _ = inputs(packed=3, length=100)
    end = torch.tensor([[1, 20, 63], [2, 2, 64]])
    poisoned = [
        torch.cat([tensor[:, :, :64], torch.full_like(tensor[:, :, 64:], torch.nan)], 2)
        .detach()
        .requires_grad_()
        for tensor in (key, value)
    ]
    output, _ = triton_attention(query, *poisoned, end, splits=2)
    torch.testing.assert_close(
        output, triton_attention(query, key, value, end, splits=1)[0], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("window", [None, 5])
def test_where_the_kernel_is_chosen_the_whole_operation_is_still_the_reference(monkeypatch, shared, window):
    from torchcram.ops.routed_attention import choice, routed_attention_reference

    monkeypatch.setattr(choice, "kernels_for", lambda key: True)
    query, key, value = drawn(2, 2, 30, 8), drawn(2, shared, 33, 8, seed=1), drawn(2, shared, 33, 8, seed=2)
    selected = torch.rand(2, 30, generator=torch.Generator().manual_seed(3)) < 0.4
    expected = routed_attention_reference(query, key, value, selected, offset=3, window=window)
    monkeypatch.setattr(choice, "tiled_attention", None)
    monkeypatch.setattr(choice, "gathered_attention", None)
    torch.testing.assert_close(
        choice.routed_attention(query, key, value, selected, offset=3, window=window),
        expected,
        rtol=1e-9,
        atol=1e-9,
    )
    torch.testing.assert_close(
        choice.routed_attention_lse(query, key, value, selected, offset=3, window=window)[0],
        expected,
        rtol=1e-9,
        atol=1e-9,
    )
