"""Whether the Triton kernels are used: on a GPU, for the precisions that it multiplies fast, and where the package ``triton`` is installed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def kernels_for(tensor: Tensor) -> bool:
    """Whether a kernel may compute with such a tensor; plain PyTorch does otherwise."""
    return tensor.is_cuda and tensor.dtype in DTYPES and _installed()


@cache
def _installed() -> bool:
    return find_spec("triton") is not None
