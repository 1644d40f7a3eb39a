"""The familiarity estimator looks without touching: it sees state, answer and evidence, and sends no
gradient into them."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from torchcram.memory.familiarity import FamiliarityEstimator
from torchcram.memory.semantic import SemanticRead


def seen(tokens: int = 6) -> tuple[Tensor, SemanticRead]:
    h, value, evidence = (torch.randn(tokens, width, requires_grad=True) for width in (8, 8, 3))
    return h, SemanticRead(value=value, evidence=evidence)


def test_no_gradient_reaches_what_it_looks_at():
    estimator, (h, read) = FamiliarityEstimator(8, evidence_size=3), seen()
    estimator(h, read).sum().backward()
    assert h.grad is read.value.grad is read.evidence.grad is None
    assert all(parameter.grad.any() for parameter in estimator.parameters())


@pytest.mark.parametrize("part", ["state", "value", "evidence"])
def test_it_sees_the_state_the_answer_and_the_evidence(part):
    estimator, (h, read) = FamiliarityEstimator(8, evidence_size=3), seen()
    parts = {"state": h, "value": read.value, "evidence": read.evidence}
    other = {**parts, part: parts[part] + 1.0}
    changed = estimator(other["state"], SemanticRead(value=other["value"], evidence=other["evidence"]))
    assert (changed - estimator(h, read)).abs().min() > 1e-4


def test_tokens_do_not_meet():
    estimator, (h, read) = FamiliarityEstimator(8, evidence_size=3), seen()
    alone = torch.cat(
        [
            estimator(
                h[i : i + 1], SemanticRead(value=read.value[i : i + 1], evidence=read.evidence[i : i + 1])
            )
            for i in range(6)
        ]
    )
    torch.testing.assert_close(estimator(h, read), alone)


def test_it_starts_out_doubtful():
    """Nothing is familiar to an untrained memory: no token is answered by it before the estimator has
    learned that it may be."""
    assert torch.sigmoid(FamiliarityEstimator(8, evidence_size=3)(*seen(200))).max() < 0.3


def test_it_learns_to_predict_the_quality():
    estimator, (h, read) = FamiliarityEstimator(8, evidence_size=3), seen(500)
    quality = torch.sigmoid(3 * read.evidence[:, 0]).detach()
    optimizer = torch.optim.Adam(estimator.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(estimator(h, read), quality).backward()
        optimizer.step()
    assert (torch.sigmoid(estimator(h, read)) - quality).abs().mean() < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_come_in_full_precision(dtype):
    estimator, (h, read) = FamiliarityEstimator(8, evidence_size=3).to(dtype), seen()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.float32):
        assert (
            estimator(
                h.to(dtype), SemanticRead(value=read.value.to(dtype), evidence=read.evidence.to(dtype))
            ).dtype
            == dtype
        )
