"""Class means are what they are called, and their error from sums is that of the tokens."""

import pytest
import torch
from sklearn.dummy import DummyRegressor

from torchcram.pretrained.analysis.controls import (
    POSITION_CLASSES,
    class_error,
    frequent_tokens,
    no_class_sums,
    position_class,
)
from torchcram.pretrained.analysis.mlp_probe import MLPProbe


def sums(classes, y, *, count):
    found = no_class_sums(count, y.shape[1])
    for some in range(0, len(y), 11):
        found.add(classes[some : some + 11], y[some : some + 11])
    return found.mapped(torch.eye(y.shape[1], dtype=torch.float64))


def test_one_class_is_the_dummy_regressor():
    y = torch.randn(50, 3)
    found = sums(torch.zeros(50, dtype=torch.long), y, count=1)
    oracle = DummyRegressor().fit(torch.zeros(50, 1), y.numpy())
    torch.testing.assert_close(
        found.means(strength=1.0)[0].float(), torch.tensor(oracle.constant_[0]).float()
    )


def test_the_error_from_sums_is_that_of_the_tokens():
    classes = torch.arange(60) % 4
    fit_y, held_y = torch.randn(60, 3) + classes[:, None], torch.randn(60, 3) + classes[:, None]
    fit, held = sums(classes, fit_y, count=4), sums(classes, held_y, count=4)
    wrong = (held_y.double() - fit.means(strength=3.0)[classes]).square().sum(1).mean()
    squares = float(held_y.double().square().sum(1).mean())
    assert class_error(fit, held, strength=3.0, squares=squares) == pytest.approx(float(wrong), rel=1e-6)


def test_frequent_tokens_have_classes_of_their_own_and_the_rest_shares_one():
    classes = frequent_tokens([torch.tensor([5, 5, 5, 7, 7, 9])], vocabulary=12)
    assert classes.count == 3
    assert classes.of_token[[5, 7, 9, 0]].tolist() == [0, 1, 2, 2]
    of = classes.of(torch.tensor([7, 5, 9]))
    assert of["token"].tolist() == [1, 0, 2]
    assert of["previous"].tolist() == [2, 1, 0]


def test_positions_share_ever_wider_classes():
    classes = position_class(torch.arange(8192))
    assert classes[:5].tolist() == [0, 1, 2, 3, 4]
    assert (classes.diff() >= 0).all()
    assert classes.diff().max() == 1
    assert classes.max() < POSITION_CLASSES


def test_an_mlp_learns_what_no_linear_probe_can_and_can_be_kept():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 4, generator=generator)
    y = (x[:, :2] * x[:, 2:]).contiguous()
    probe = MLPProbe(4, 2, width=32, generator=torch.Generator().manual_seed(1))
    for _ in range(10):
        for some in range(0, len(x), 1024):
            probe.learn(x[some : some + 1024], y[some : some + 1024])
    # Of a product of independent channels a linear probe explains nothing.
    assert (probe.predict(x[:2000]) - y[:2000]).square().mean() < 0.6 * y.var()
    fresh = MLPProbe(4, 2, width=32, generator=torch.Generator().manual_seed(2))
    fresh.restore(probe.state())
    torch.testing.assert_close(fresh.predict(x[:50]), probe.predict(x[:50]))
