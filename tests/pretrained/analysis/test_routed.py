"""Routing skips the share of the reads that it was told to, at the price of really skipping them."""

import pytest
import torch

from tiny_models import random_windows
from torchcram.pretrained.analysis.harm import Forecast
from torchcram.pretrained.analysis.judged import judge
from torchcram.pretrained.analysis.prefixes import dropping, replacing
from torchcram.pretrained.analysis.ridge import LinearProbe
from torchcram.pretrained.analysis.routed import Router, route, thresholds

WIDTH = 32


def forecast(weight: float) -> Forecast:
    return Forecast(linear=LinearProbe(weight=torch.full((WIDTH, 2), weight), bias=torch.zeros(2)), scale=1.0)


@pytest.mark.parametrize("policy", ["oracle", "predicted_error", "predicted_harm"])
def test_thresholds_skip_the_share_they_were_set_for(llama, policy):
    _, sites, layerwise, probes = llama
    text = random_windows(4, seed=14)
    make = {"probes": probes, "forecasts": [forecast(0.1)] * 3}
    chosen = thresholds(layerwise, sites, text, Router(policy, **make), rates=(0.25, 0.5, 1.0))
    assert [sum(chosen[rate].by_layer) / 3 for rate in (0.25, 0.5, 1.0)] == pytest.approx(
        [0.25, 0.5, 1.0], abs=0.01
    )
    router = Router(policy, **make, threshold=chosen[1.0].threshold)
    loss = route(layerwise, sites, text, router)
    if policy == "oracle":
        # In the first layer nothing was replaced before: every read of it is skipped.
        assert float(router.skipped[0] / router.seen[0]) == 1.0
    assert loss > 0


def test_skipping_nothing_is_the_model_and_skipping_all_is_replacing_all(llama):
    _, sites, layerwise, probes = llama
    text = random_windows(2, seed=15)
    make = {"probes": probes, "forecasts": [forecast(0.1)] * 3}
    nothing = route(layerwise, sites, text, Router("predicted_harm", **make, threshold=-1.0))
    everything = Router("predicted_harm", **make)
    all_replaced = judge(
        layerwise,
        sites,
        text,
        {"all": {number: replacing(probe) for number, probe in enumerate(probes)}, "none": {}},
        documents=[0, 1],
    )
    assert nothing == pytest.approx(all_replaced.base, abs=1e-5)
    assert route(layerwise, sites, text, everything) - nothing == pytest.approx(
        all_replaced.change("all"), abs=1e-5
    )
    assert float(everything.skipped.sum() / everything.seen.sum()) == 1.0
    dropped = route(layerwise, sites, text, Router("predicted_harm_dropped", **make))
    whole = judge(layerwise, sites, text, {"drop": dict.fromkeys(range(3), dropping)}, documents=[0, 1])
    assert dropped - nothing == pytest.approx(whole.change("drop"), abs=1e-5)
