"""Sums in pieces are sums of the whole."""

import pytest
import torch

from torchcram.pretrained.analysis.moments import covariances, no_moments


def sums(x, y, *, pieces):
    moments = no_moments(x.shape[1], y.shape[1])
    for some_x, some_y in zip(x.chunk(pieces), y.chunk(pieces), strict=True):
        moments.add(some_x, some_y)
    return moments


def test_pieces_make_the_covariance_of_the_whole():
    x, y = torch.randn(97, 5, dtype=torch.float64) + 3, torch.randn(97, 4, dtype=torch.float64)
    streamed = covariances(sums(x, y, pieces=7))
    whole = torch.cov(torch.cat((x, y), 1).T, correction=0)
    assert streamed.count == 97
    torch.testing.assert_close(
        torch.cat((torch.cat((streamed.xx, streamed.xy), 1), torch.cat((streamed.xy.T, streamed.yy), 1))),
        whole,
    )
    torch.testing.assert_close(streamed.mean_x, x.mean(0))


def test_a_projection_of_the_outputs_maps_their_covariance():
    x, y = torch.randn(60, 3, dtype=torch.float64), torch.randn(60, 4, dtype=torch.float64)
    weight, bias = torch.randn(4, 2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    mapped, direct = (
        covariances(sums(x, y, pieces=1)).mapped(weight, bias),
        covariances(sums(x, y @ weight + bias, pieces=1)),
    )
    for name in ("mean_y", "xy", "yy"):
        torch.testing.assert_close(getattr(mapped, name), getattr(direct, name))


def test_an_overflow_is_noticed():
    moments = sums(torch.ones(4, 2), torch.ones(4, 2), pieces=1)
    assert moments.finite()
    moments.add(torch.ones(1, 2), torch.tensor([[float("inf"), 0.0]]))
    assert not moments.finite()


def test_no_tokens_have_no_covariance():
    with pytest.raises(ValueError, match="no tokens were seen"):
        covariances(no_moments(2, 2))
