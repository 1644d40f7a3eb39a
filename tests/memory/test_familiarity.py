"""The familiarity estimator looks without touching: it sees state, answer and evidence, and sends no
gradient into them."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from torchcram.memory.familiarity import FamiliarityEstimator
from torchcram.memory.semantic import SemanticAnswer


def seen(tokens: int = 6) -> tuple[Tensor, SemanticAnswer]:
    h, value, evidence = (torch.randn(tokens, width, requires_grad=True) for width in (8, 8, 3))
    return h, SemanticAnswer(value=value, evidence=evidence)


def test_no_gradient_reaches_what_it_looks_at():
    estimator, (h, answer) = FamiliarityEstimator(8, evidence_size=3), seen()
    estimator(h, answer).sum().backward()
    assert h.grad is answer.value.grad is answer.evidence.grad is None
    assert all(parameter.grad.any() for parameter in estimator.parameters())


@pytest.mark.parametrize("part", ["state", "value", "evidence"])
def test_it_sees_the_state_the_answer_and_the_evidence(part):
    estimator, (h, answer) = FamiliarityEstimator(8, evidence_size=3), seen()
    parts = {"state": h, "value": answer.value, "evidence": answer.evidence}
    other = {**parts, part: parts[part] + 1.0}
    changed = estimator(other["state"], SemanticAnswer(value=other["value"], evidence=other["evidence"]))
    assert (changed - estimator(h, answer)).abs().min() > 1e-4


def test_tokens_do_not_meet():
    estimator, (h, answer) = FamiliarityEstimator(8, evidence_size=3), seen()
    alone = torch.cat(
        [
            estimator(
                h[i : i + 1],
                SemanticAnswer(value=answer.value[i : i + 1], evidence=answer.evidence[i : i + 1]),
            )
            for i in range(6)
        ]
    )
    torch.testing.assert_close(estimator(h, answer), alone)


def test_it_starts_out_doubtful():
    """Nothing is familiar to an untrained memory: no token is answered by it before the estimator has
    learned that it may be."""
    assert torch.sigmoid(FamiliarityEstimator(8, evidence_size=3)(*seen(200))).max() < 0.3


def test_it_learns_to_predict_the_quality():
    estimator, (h, answer) = FamiliarityEstimator(8, evidence_size=3), seen(500)
    quality = torch.sigmoid(3 * answer.evidence[:, 0]).detach()
    optimizer = torch.optim.Adam(estimator.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(estimator(h, answer), quality).backward()
        optimizer.step()
    assert (torch.sigmoid(estimator(h, answer)) - quality).abs().mean() < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_come_in_full_precision(dtype):
    estimator, (h, answer) = FamiliarityEstimator(8, evidence_size=3).to(dtype), seen()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.float32):
        assert (
            estimator(
                h.to(dtype), SemanticAnswer(value=answer.value.to(dtype), evidence=answer.evidence.to(dtype))
            ).dtype
            == dtype
        )
