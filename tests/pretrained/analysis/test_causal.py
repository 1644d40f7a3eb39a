"""Costs are those of really running the model with the replaced outputs; plans are made without the test
text."""

import pytest
import torch

from tiny_models import FAMILIES, tiny_model
from torchcram.pretrained.analysis.causal import (
    Prefixes,
    Router,
    divergence,
    dropping,
    each_alone,
    judge,
    replacing,
    route,
    thresholds,
)
from torchcram.pretrained.analysis.harm import (
    Forecast,
    first_order_harm,
    learn_harm,
    measured,
    relative_error,
)
from torchcram.pretrained.analysis.layerwise import Layerwise, token_losses
from torchcram.pretrained.analysis.moments import covariances, no_moments
from torchcram.pretrained.analysis.refit import fit_each, refit
from torchcram.pretrained.analysis.ridge import LinearProbe, chosen_on
from torchcram.pretrained.analysis.state_probe import Summary
from torchcram.pretrained.capture import capture
from torchcram.pretrained.local_attention import local_attention
from torchcram.pretrained.sites import find_sites

WIDTH = 32


def windows(count: int, *, seed: int, tokens: int = 24):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 64, (tokens,), generator=generator) for _ in range(count)]


@pytest.fixture(scope="module")
def llama():
    """A model, its sites, itself layer by layer, and plain probes."""
    torch.manual_seed(0)
    model = tiny_model("llama", num_hidden_layers=3)
    sites = find_sites(model)
    parts = [[no_moments(WIDTH, WIDTH) for _ in sites] for _ in range(2)]
    for place, ids in enumerate(windows(40, seed=1)):

        def add(number, x, output, place=place):
            parts[place % 4 == 3][number].add(x, output)
            return output

        with torch.no_grad(), capture(sites, replace=add):
            model(input_ids=ids[None], use_cache=False)
    probes = [
        chosen_on(covariances(held), covariances(fit)).float() for fit, held in zip(*parts, strict=True)
    ]
    return model, sites, Layerwise(model, sites), probes


@pytest.mark.parametrize("family", FAMILIES)
def test_running_from_a_layer_on_is_running_the_model_with_hooks(family):
    model = tiny_model(family)
    sites, ids = find_sites(model), windows(1, seed=0)[0]
    last = len(sites) - 1
    prefixes = Prefixes(Layerwise(model, sites), sites, ids)
    with torch.no_grad(), capture([sites[last]], replace=lambda number, x, output: torch.zeros_like(output)):
        expected = token_losses(model(input_ids=ids[None], use_cache=False).logits[0], ids)
    with torch.no_grad():
        torch.testing.assert_close(prefixes.losses({last: dropping}), expected, rtol=1e-4, atol=1e-4)


def test_each_alone_measures_one_block_at_a_time(llama):
    model, sites, layerwise, probes = llama
    text = windows(2, seed=5)
    found = each_alone(layerwise, sites, text, [replacing(probe) for probe in probes])
    change = 0.0
    for ids in text:
        prefixes = Prefixes(layerwise, sites, ids)
        with torch.no_grad():
            change += float((prefixes.losses({1: replacing(probes[1])}) - prefixes.losses({})).sum())
    assert found[1].loss == pytest.approx(change / 46, abs=1e-6)
    assert all(one.divergence > 0 for one in found)
    nothing = each_alone(layerwise, sites, text, [lambda x, output: output] * 3)
    assert [abs(one.divergence) < 1e-5 for one in nothing] == [True] * 3


def test_the_divergence_is_that_of_the_distributions():
    base, new = torch.randn(300, 7), torch.randn(300, 7)
    p, q = base.double().softmax(-1), new.double().softmax(-1)
    assert divergence(base, new) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)


def test_judging_counts_predictions_and_documents(llama):
    _, sites, layerwise, probes = llama
    variants = {"same": {0: lambda x, output: output}, "drop": {0: dropping, 2: dropping}}
    found = judge(layerwise, sites, windows(3, seed=6), variants, documents=[4, 4, 7])
    assert found.predictions == (23, 23, 23)
    assert found.change("same") == pytest.approx(0.0, abs=1e-5)
    assert found.change("drop") == pytest.approx(sum(found.changes["drop"]) / 69)


def test_refitting_behind_replaced_layers_beats_plain_probes_on_its_own_text(llama):
    _, sites, layerwise, probes = llama
    fit, select = windows(30, seed=7), windows(6, seed=8)
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
    assert {size: sorted(found) for size, found in chosen.items()} == {1: [1], 2: [0, 1], 3: [0, 1, 2]}
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
    select = windows(3, seed=9)
    summaries = [Summary(directions=torch.zeros(WIDTH, 0)) for _ in sites]
    chosen, changes = refit(
        layerwise,
        sites,
        {2: [2, 0]},
        first=probes,
        summaries=summaries,
        fit=windows(8, seed=10),
        select=select,
    )
    found = judge(
        layerwise,
        sites,
        select,
        {"two": {number: replacing(probe) for number, probe in chosen[2].items()}},
        documents=[0, 1, 2],
    )
    assert changes[2] == pytest.approx(found.change("two"), abs=1e-5)


def test_the_probe_of_each_layer_alone_is_that_of_the_set_of_one(llama):
    model, sites, layerwise, probes = llama
    summaries = [
        Summary(directions=torch.eye(WIDTH)[:, :4], local=local)
        for local in local_attention(model, sites, reach=2)
    ]
    data = {
        "first": probes,
        "summaries": summaries,
        "fit": windows(8, seed=12),
        "select": windows(3, seed=13),
    }
    each = fit_each(layerwise, sites, **data)
    assert len(each) == len(sites)
    for number, probe in enumerate(each):
        chosen, _ = refit(layerwise, sites, {1: [number]}, **data)
        assert probe.linear.weight.shape == (summaries[number].features, WIDTH)
        torch.testing.assert_close(probe.linear.weight, chosen[1][number].linear.weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probe.linear.bias, chosen[1][number].linear.bias, rtol=1e-4, atol=1e-5)


def test_first_order_harm_is_the_gradient_times_the_error(llama):
    """A small change of one output moves the loss by gradient times change: central differences (norms of
    the model work in float32)."""
    model, sites, _, _ = llama
    exact = tiny_model("llama", num_hidden_layers=3).double()
    exact.load_state_dict(model.state_dict())
    blocks, ids = find_sites(exact), windows(1, seed=11)[0]
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
    from torch.nn.functional import cross_entropy

    return cross_entropy(model(input_ids=ids[None], use_cache=False).logits[0, :-1], ids[1:], reduction="sum")


def test_harm_is_even_in_its_arguments():
    gradient, change = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(first_order_harm(gradient, change), first_order_harm(-gradient, change))
    assert relative_error(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).item() == pytest.approx(1.0)


def test_forecasts_have_the_right_order_on_their_text_and_the_right_mean_on_held_out_text(llama):
    model, sites, _, probes = llama
    text = windows(24, seed=12)
    forecasts = learn_harm(model, sites, text, probes=probes)
    found = [measured(model, sites, ids, probes=probes)[2] for ids in text]
    fitted = torch.cat(
        [
            torch.stack((forecasts[2](x)[:, 0], error.log()))
            for place, (x, error, _) in enumerate(found)
            if place % 4 < 3
        ],
        1,
    )
    assert torch.corrcoef(fitted)[0, 1] > 0.2
    predicted, harm = (
        torch.cat(parts).mean()
        for parts in zip(*[(forecasts[2].harm(x), harm) for x, _, harm in found[3::4]], strict=True)
    )
    assert float(predicted) == pytest.approx(float(harm), rel=1e-3)


def forecast(weight: float) -> Forecast:
    return Forecast(linear=LinearProbe(weight=torch.full((WIDTH, 2), weight), bias=torch.zeros(2)), scale=1.0)


@pytest.mark.parametrize("policy", ["oracle", "predicted_error", "predicted_harm"])
def test_thresholds_skip_the_share_they_were_set_for(llama, policy):
    _, sites, layerwise, probes = llama
    text = windows(4, seed=14)
    make = {"probes": probes, "forecasts": [forecast(0.1)] * 3}
    found = thresholds(layerwise, sites, text, Router(policy, **make), rates=(0.25, 0.5, 1.0))
    assert [sum(found[rate].by_layer) / 3 for rate in (0.25, 0.5, 1.0)] == pytest.approx(
        [0.25, 0.5, 1.0], abs=0.01
    )
    router = Router(policy, **make, threshold=found[1.0].threshold)
    loss = route(layerwise, sites, text, router)
    if policy == "oracle":
        # In the first layer nothing was replaced before: every read of it is skipped.
        assert float(router.skipped[0] / router.seen[0]) == 1.0
    assert loss > 0


def test_skipping_nothing_is_the_model_and_skipping_all_is_replacing_all(llama):
    _, sites, layerwise, probes = llama
    text = windows(2, seed=15)
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
