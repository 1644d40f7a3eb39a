"""Whether the Triton kernels are used: on a GPU that is new enough, for the precisions that it multiplies
fast, and where Triton is installed.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

# Ampere: the first that multiplies bfloat16.
CAPABILITY = (8, 0)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def kernels_for(tensor: Tensor) -> bool:
    """Whether a kernel may compute with such a tensor; plain PyTorch does otherwise, and whenever a model
    is compiled or exported.
    """
    if not tensor.is_cuda or tensor.dtype not in DTYPES or torch.compiler.is_compiling():
        return False
    return _installed() and torch.cuda.get_device_capability(tensor.device) >= CAPABILITY


@cache
def _installed() -> bool:
    return find_spec("triton") is not None
