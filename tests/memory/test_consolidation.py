"""Consolidation: the error of a semantic answer, and its quality."""

import math

import pytest
import torch

from torchcram.memory.consolidation import consolidation_quality, relative_error


def test_the_error_is_relative_to_the_retrieval():
    retrieval = torch.tensor([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]])
    answer = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    assert relative_error(answer, retrieval).tolist() == pytest.approx([0.0, 1.0, 0.0])
    assert relative_error(-answer, retrieval).tolist() == pytest.approx([4.0, 1.0, 0.0])


def test_the_error_teaches_the_answer_and_not_the_retrieval():
    answer, retrieval = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    relative_error(answer, retrieval).sum().backward()
    assert answer.grad.any()
    assert retrieval.grad is None


def test_quality_falls_from_one_with_the_error():
    error = torch.tensor([0.0, 0.5, 2.0], requires_grad=True)
    quality = consolidation_quality(error, variance=0.5)
    assert quality.tolist() == pytest.approx([1.0, math.exp(-1), math.exp(-4)])
    assert not quality.requires_grad
