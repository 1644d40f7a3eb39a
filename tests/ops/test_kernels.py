"""Kernels are for GPUs, for precisions that these multiply fast, and for those who have Triton."""

from types import SimpleNamespace

import pytest
import torch

from torchcram.ops import kernels


@pytest.mark.parametrize(
    ("cuda", "dtype", "installed", "capability", "compiling", "used"),
    [
        (True, torch.bfloat16, True, (9, 0), False, True),
        (True, torch.float32, True, (8, 0), False, True),
        (True, torch.float64, True, (9, 0), False, False),
        (True, torch.float32, False, (9, 0), False, False),
        (True, torch.float32, True, (7, 5), False, False),
        (True, torch.float32, True, (9, 0), True, False),
        (False, torch.float32, True, (9, 0), False, False),
    ],
)
def test_a_kernel_is_used_where_it_can_be(monkeypatch, cuda, dtype, installed, capability, compiling, used):
    monkeypatch.setattr(kernels, "_installed", lambda: installed)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    tensor = SimpleNamespace(is_cuda=cuda, dtype=dtype, device="cuda:0")
    assert kernels.kernels_for.__wrapped__(tensor) is used
