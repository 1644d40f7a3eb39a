"""Kernels are for GPUs, for precisions that these multiply fast, and for those who have Triton."""

from types import SimpleNamespace

import pytest
import torch

from torchcram.ops import kernels


@pytest.mark.parametrize(
    ("cuda", "dtype", "installed", "used"),
    [
        (True, torch.bfloat16, True, True),
        (True, torch.float32, True, True),
        (True, torch.float64, True, False),
        (True, torch.float32, False, False),
        (False, torch.float32, True, False),
    ],
)
def test_a_kernel_is_used_where_it_can_be(monkeypatch, cuda, dtype, installed, used):
    monkeypatch.setattr(kernels, "_installed", lambda: installed)
    assert kernels.kernels_for.__wrapped__(SimpleNamespace(is_cuda=cuda, dtype=dtype)) is used
