"""Predicted harm is, to first order, what a wrong output does to the loss."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from tiny_models import random_windows, tiny_model
from torchcram.pretrained.analysis.harm import first_order_harm, learn_harm, measured, relative_error
from torchcram.pretrained.analysis.ridge import LinearProbe
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import find_sites

WIDTH = 32


def test_first_order_harm_is_the_gradient_times_the_error(llama):
    """A small change of one output moves the loss by gradient times change: central differences (norms of
    the model work in float32)."""
    model, sites, _, _ = llama
    exact = tiny_model("llama", num_hidden_layers=3).double()
    exact.load_state_dict(model.state_dict())
    blocks, ids = find_sites(exact), random_windows(1, seed=11)[0]
    shift = torch.randn(WIDTH, dtype=torch.float64) * 3e-3
    outputs = {}
    with (
        torch.no_grad(),
        capture(blocks, replace=lambda number, x, output: outputs.setdefault(number, output)),
    ):
        exact(input_ids=ids[None], use_cache=False)
    target = outputs[1].clone()
    target[5] += shift

    class Shifted(LinearProbe):
        def __call__(self, x):
            return target

    silent = LinearProbe(
        weight=torch.zeros(WIDTH, WIDTH, dtype=torch.float64), bias=torch.zeros(WIDTH, dtype=torch.float64)
    )
    probes = [silent, Shifted(weight=silent.weight, bias=silent.bias), silent]
    _, _, harm = measured(exact, blocks, ids, probes=probes)[1]
    losses = []
    for changed in (target, 2 * outputs[1] - target):
        with (
            torch.no_grad(),
            capture([blocks[1]], replace=lambda number, x, output, changed=changed: changed),
        ):
            losses.append(float(token_losses_in_float64(exact, ids)))
    assert float(harm[5]) == pytest.approx((losses[0] - losses[1]) ** 2 / 8, rel=0.05)
    assert harm[[0, 4, 6]].abs().max() < 1e-6 * harm[5]


def token_losses_in_float64(model, ids):
    return cross_entropy(model(input_ids=ids[None], use_cache=False).logits[0, :-1], ids[1:], reduction="sum")


def test_harm_is_even_in_its_arguments():
    gradient, change = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(first_order_harm(gradient, change), first_order_harm(-gradient, change))
    assert relative_error(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).item() == pytest.approx(1.0)


def test_forecasts_have_the_right_order_on_their_text_and_the_right_mean_on_held_out_text(llama):
    model, sites, _, probes = llama
    text = random_windows(24, seed=12)
    forecasts = learn_harm(model, sites, text, probes=probes)
    by_window = [measured(model, sites, ids, probes=probes)[2] for ids in text]
    fitted = torch.cat(
        [
            torch.stack((forecasts[2](x)[:, 0], error.log()))
            for place, (x, error, _) in enumerate(by_window)
            if place % 4 < 3
        ],
        1,
    )
    assert torch.corrcoef(fitted)[0, 1] > 0.2
    predicted, harm = (
        torch.cat(parts).mean()
        for parts in zip(*[(forecasts[2].harm(x), harm) for x, _, harm in by_window[3::4]], strict=True)
    )
    assert float(predicted) == pytest.approx(float(harm), rel=1e-3)
