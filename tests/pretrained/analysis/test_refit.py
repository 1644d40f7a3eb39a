"""Probes that are refitted behind replaced layers make good what those did wrong."""

import pytest
import torch

from tiny_models import random_windows
from torchcram.pretrained.analysis.judged import judge
from torchcram.pretrained.analysis.prefixes import Prefixes, replacing
from torchcram.pretrained.analysis.refit import fit_each, refit
from torchcram.pretrained.analysis.state_probe import Summary
from torchcram.pretrained.capture import capture
from torchcram.pretrained.local_attention import local_attention

WIDTH = 32


def test_refitting_behind_replaced_layers_beats_plain_probes_on_its_own_text(llama):
    _, sites, layerwise, probes = llama
    fit, select = random_windows(30, seed=7), random_windows(6, seed=8)
    summaries = [Summary(directions=torch.eye(WIDTH)[:, :4]) for _ in sites]
    chosen, changes = refit(
        layerwise,
        sites,
        {1: [1], 2: [1, 0], 3: [0, 1, 2]},
        first=probes,
        summaries=summaries,
        fit=fit,
        select=select,
    )
    assert {size: sorted(of_set) for size, of_set in chosen.items()} == {1: [1], 2: [0, 1], 3: [0, 1, 2]}
    assert set(changes) == {1, 2, 3}
    # In the set of two, layer 1 was fitted behind the replaced layer 0: its error against the untouched
    # outputs is less than the plain probe's there.
    errors = {"plain": 0.0, "refitted": 0.0}
    for ids in fit:
        prefixes = Prefixes(layerwise, sites, ids)
        outputs, inputs = {}, {}
        with (
            torch.no_grad(),
            capture(sites, replace=lambda number, x, output, kept=outputs: kept.setdefault(number, output)),
        ):
            layerwise.run(prefixes.hidden[0], prefixes.calls)

        def keep(number, x, output, kept=inputs):
            kept[number] = x
            return chosen[2][0](x) if number == 0 else output

        with torch.no_grad(), capture(sites, replace=keep):
            layerwise.run(prefixes.hidden[0], prefixes.calls)
        errors["plain"] += float((probes[1](inputs[1]) - outputs[1]).square().sum())
        errors["refitted"] += float((chosen[2][1](inputs[1]) - outputs[1]).square().sum())
    assert errors["refitted"] < errors["plain"]


def test_the_change_on_select_text_is_that_of_running_with_the_refitted_probes(llama):
    _, sites, layerwise, probes = llama
    select = random_windows(3, seed=9)
    summaries = [Summary(directions=torch.zeros(WIDTH, 0)) for _ in sites]
    chosen, changes = refit(
        layerwise,
        sites,
        {2: [2, 0]},
        first=probes,
        summaries=summaries,
        fit=random_windows(8, seed=10),
        select=select,
    )
    judged = judge(
        layerwise,
        sites,
        select,
        {"two": {number: replacing(probe) for number, probe in chosen[2].items()}},
        documents=[0, 1, 2],
    )
    assert changes[2] == pytest.approx(judged.change("two"), abs=1e-5)


def test_the_probe_of_each_layer_alone_is_that_of_the_set_of_one(llama):
    model, sites, layerwise, probes = llama
    summaries = [
        Summary(directions=torch.eye(WIDTH)[:, :4], local=local)
        for local in local_attention(model, sites, reach=2)
    ]
    data = {
        "first": probes,
        "summaries": summaries,
        "fit": random_windows(8, seed=12),
        "select": random_windows(3, seed=13),
    }
    each = fit_each(layerwise, sites, **data)
    assert len(each) == len(sites)
    for number, probe in enumerate(each):
        chosen, _ = refit(layerwise, sites, {1: [number]}, **data)
        assert probe.linear.weight.shape == (summaries[number].features, WIDTH)
        torch.testing.assert_close(probe.linear.weight, chosen[1][number].linear.weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probe.linear.bias, chosen[1][number].linear.bias, rtol=1e-4, atol=1e-5)
