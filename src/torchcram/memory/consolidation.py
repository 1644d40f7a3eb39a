"""What consolidation is measured by (paper, section 4): the error of a semantic answer, and its quality.

    err = |f_sem(sg h) - sg r_E|^2 / (|r_E|^2 + eps)        q = exp(-err / sigma^2)

Both are per token, and need the retrieval ``r_E``: they are known for tokens that were read. The error is the
consolidation loss of those tokens, and does not shape the trunk.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def relative_error(
    answer: Float[Tensor, "tokens d_model"], retrieval: Float[Tensor, "tokens d_model"]
) -> Float[Tensor, " tokens"]:
    """Return the squared distance of the semantic answer to the retrieval, relative to the retrieval's own
    square. No gradient to the latter.
    """
    target = retrieval.detach()
    dtype = torch.promote_types(target.dtype, torch.float32)
    return (answer - target).to(dtype).square().sum(-1) / (target.to(dtype).square().sum(-1) + 1e-6)


def consolidation_quality(error: Float[Tensor, " tokens"], *, variance: float) -> Float[Tensor, " tokens"]:
    """Return ``q = exp(-error / variance)``, in (0, 1]."""
    return torch.exp(-error.detach() / variance)
