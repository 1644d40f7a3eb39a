"""What is learned in closed form: lessons, gradients, ridge, routers, prices, each against its definition."""

import pytest
import torch
from sklearn.linear_model import Ridge

from retrofitted import make_retrofitted
from tiny_models import tiny_model
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.acquire import acquire, standard_of
from torchcram.pretrained.retrofit.closed_form import map_of, narrowed, solutions
from torchcram.pretrained.retrofit.gradients import drawn, visit_gradients
from torchcram.pretrained.retrofit.install import install, memories, reading
from torchcram.pretrained.retrofit.judge import Setting, judge
from torchcram.pretrained.retrofit.lessons import changing, lesson_of, listening
from torchcram.pretrained.retrofit.moments import LEAST_WEIGHT, no_remote_moments
from torchcram.pretrained.retrofit.parts import merge
from torchcram.pretrained.retrofit.refit import ErrorMoments, refit
from torchcram.pretrained.retrofit.router_fit import fit_routers, price_for
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.pretrained.sites import find_sites


def texts(count, length=60, *, seed=0):
    """Windows in which every third token repeats one of the first: what is remote matters."""
    generator = torch.Generator().manual_seed(seed)
    windows = [torch.randint(3, 60, (length,), generator=generator) for _ in range(count)]
    for ids in windows:
        ids[30::3] = ids[5:15][: len(ids[30::3])]
    return windows


def fresh(family="llama", **settings):
    model = tiny_model(family)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    install(model, RetrofitSettings(sinks=2, window=5, kept=3, **settings))
    return model, Layerwise(model, find_sites(model))


def generator():
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def lessons(model, windows):
    layers, told = memories(model), {layer: [] for layer in memories(model)}

    def hear(layer, asked):
        told[layer].append(lesson_of(layers[layer], asked))

    with reading(model, "all"), listening(layers, hear):
        for ids in windows:
            model.base_model(input_ids=ids[None])
    return told


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon"])
def test_gradients_layer_by_layer_are_those_of_the_whole_model(family, monkeypatch):
    monkeypatch.setattr("torchcram.pretrained.retrofit.gradients.LOGITS", 17)
    model, layerwise = fresh(family)
    (ids,) = texts(1)
    found = {}
    with reading(model, "all"):
        visit_gradients(
            layerwise,
            memories(model),
            ids,
            lambda layer, asked, gradient: found.__setitem__(layer, gradient),
            generator=generator(),
        )
        leaves = {}

        def leaf(layer):
            def add(asked, heads):
                leaves[layer] = torch.zeros_like(heads, requires_grad=True)
                return heads + leaves[layer]

            return add

        with changing(memories(model)[0], leaf(0)), changing(memories(model)[1], leaf(1)):
            logits = model(ids[None], use_cache=False).logits[0]
        same = generator()
        labels = torch.cat([drawn(part.detach(), same) for part in logits.split(17)])
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        defined = torch.autograd.grad(loss, list(leaves.values()))
    for layer, gradient in zip(leaves, defined, strict=True):
        torch.testing.assert_close(found[layer], gradient, rtol=1e-4, atol=1e-5)


def test_labels_are_drawn_as_often_as_they_are_likely():
    logits = torch.tensor([0.1, 0.6, 0.3]).log().expand(20_000, 3)
    shares = torch.bincount(drawn(logits, generator()), minlength=3) / 20_000
    assert (shares - torch.tensor([0.1, 0.6, 0.3])).abs().max() < 5 * (0.25 / 20_000) ** 0.5


def test_harm_is_half_the_square_of_gradient_times_change():
    model, layerwise = fresh()
    told = []
    with reading(model, "all"):
        visit_gradients(
            layerwise,
            memories(model),
            texts(1)[0],
            lambda layer, asked, gradient: told.append(lesson_of(memories(model)[layer], asked, gradient)),
            generator=generator(),
        )
    lesson = told[0]
    change = lesson.evidence.near.value - merge(lesson.evidence.near, lesson.remote)
    torch.testing.assert_close(
        lesson.harm(None), (change * lesson.gradient).sum((1, 2)).square() / 2, rtol=1e-4, atol=1e-8
    )
    assert lesson.harm(lesson.remote).max() < 1e-10
    assert len(lesson.harm(None)) == 60 - 7 - 3


def test_the_closed_form_is_ridge_regression_of_what_the_gist_leaves():
    model, _ = fresh()
    told = lessons(model, texts(30))[1]
    semantic = memories(model)[1].semantic
    standard = standard_of(memories(model)[1])
    standard.set(torch.full((semantic.features,), 0.1), torch.full((semantic.features,), 2.0))
    sums = no_remote_moments(semantic.features, heads=4, head_size=8, device=torch.device("cpu"))
    for lesson in told:
        sums.add(lesson, standard)
    solved = solutions(sums, strengths=(0.1,), directions=3)
    solved.give(semantic, 0)

    def joined(take):
        return torch.cat([take(lesson) for lesson in told]).double()

    x, share = joined(lambda lesson: standard(lesson.evidence.features())), joined(lambda one: one.share)
    weight = share.square().mean(1) + LEAST_WEIGHT
    value = joined(
        lambda one: (one.remote.value - one.evidence.gist_value * solved.share[:, None]).flatten(1)
    )
    mass = joined(lambda one: one.average_mass - one.evidence.gist_score * solved.slope)
    centred = (x - (x * weight[:, None]).sum(0) / weight.sum()) * weight.sqrt()[:, None]
    alpha = 0.1 * float(centred.square().sum(0).mean())
    oracle = Ridge(alpha=alpha).fit(x, torch.cat((value, mass), 1), sample_weight=weight)
    torch.testing.assert_close(
        semantic.map.weight.detach().double(), torch.from_numpy(oracle.coef_), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        semantic.map.bias.detach().double(), torch.from_numpy(oracle.intercept_), rtol=1e-3, atol=1e-3
    )


def test_the_gist_is_followed_as_far_as_it_explains():
    model, _ = fresh()
    told = lessons(model, texts(10))[0]
    sums = no_remote_moments(
        memories(model)[0].semantic.features, heads=4, head_size=8, device=torch.device("cpu")
    )
    for lesson in told:
        sums.add(lesson, standard_of(memories(model)[0]))
    share, slope = sums.gist_factors()
    weight = torch.cat([lesson.share.square() + LEAST_WEIGHT for lesson in told])
    score = torch.cat([lesson.evidence.gist_score for lesson in told])
    mass = torch.cat([lesson.average_mass for lesson in told])
    for head in range(4):
        oracle = Ridge(alpha=0).fit(score[:, head : head + 1], mass[:, head], sample_weight=weight[:, head])
        assert abs(float(oracle.coef_[0]) - float(slope[head])) < 1e-2 * (1 + abs(float(slope[head])))
    assert share.shape == (4,)


def test_the_best_map_of_a_rank_is_exact_at_full_rank():
    weight = torch.randn(7, 5, generator=generator())
    down, up = narrowed(weight, 5)
    torch.testing.assert_close(down @ up, weight)
    assert narrowed(weight, 2)[0].shape == (7, 2)


@pytest.mark.parametrize("kind", ["linear", "low_rank"])
def test_what_is_acquired_does_less_harm_than_near_attention_alone(kind):
    model, layerwise = fresh(kind=kind, rank=12)
    before = judge(model, texts(10, seed=2), {"none": Setting(reads="none")})["none"]
    choices = acquire(model, layerwise, fit=texts(40), select=texts(10, seed=1), generator=generator())
    for choice in choices.values():
        assert choice.harm[choice.strength] == min(choice.harm.values())
        assert choice.harm[choice.strength] < 0.8 * choice.near_harm
    after = judge(model, texts(10, seed=2), {"none": Setting(reads="none")})["none"]
    assert after.divergence < 0.9 * before.divergence


@pytest.mark.slow
def test_routers_find_the_reads_that_are_worth_most():
    model, layerwise = fresh()
    choices = acquire(model, layerwise, fit=texts(40), select=texts(10, seed=1), generator=generator())
    bases = {layer: choice.basis for layer, choice in choices.items()}
    fit_routers(model, layerwise, texts(24, seed=3), bases, generator=generator())
    _check_expectations(model, layerwise, texts(24, seed=3))
    price = price_for(model, texts(10, seed=1), reads=0.25)
    test = texts(20, seed=2)
    judged = judge(
        model,
        test,
        {"routed": Setting(price=price), "none": Setting(reads="none"), "all": Setting(reads="all")},
    )
    assert abs(judged["routed"].reads - 0.25) < 0.05
    assert judged["all"].divergence == 0
    assert judged["none"].reads == 0
    # Reading at random would take away as large a share of the divergence as of the reads.
    skipped = 1 - judged["routed"].reads / judged["all"].reads
    assert judged["routed"].divergence < 0.9 * skipped * judged["none"].divergence


def _check_expectations(model, layerwise, windows):
    """Need and what is left of it are, in the mean, what was measured."""
    sums = {layer: torch.zeros(4) for layer in memories(model)}

    def visit(layer, asked, gradient):
        memory, lesson = memories(model)[layer], lesson_of(memories(model)[layer], asked, gradient)
        log_need, logit = memory.router(lesson.evidence)
        left = lesson.harm(memory.semantic(lesson.evidence))
        expected = log_need.exp(), (log_need + torch.nn.functional.logsigmoid(-logit)).exp()
        sums[layer] += torch.stack([each.sum() for each in (lesson.harm(None), left, *expected)])

    drawing = generator()
    with torch.no_grad(), reading(model, "all"):
        for ids in windows:
            visit_gradients(layerwise, memories(model), ids, visit, generator=drawing)
    for need, left, expected_need, expected_left in sums.values():
        assert 0.5 < expected_need / need < 2
        assert 0.5 < expected_left / left < 2
        assert left < 0.7 * need


def test_all_and_nothing_have_a_price():
    model = make_retrofitted()
    windows = texts(3)
    for reads in (0.0, 1.0):
        price = price_for(model, windows, reads=reads)
        judged = judge(model, windows, {"routed": Setting(price=price)})["routed"]
        assert judged.reads == pytest.approx(reads * 50 / 60, abs=0.02)


def test_judgement_counts_what_it_says():
    model, untouched, windows = make_retrofitted(), tiny_model("llama"), texts(2)
    found = judge(model, windows, {"none": Setting(reads="none")})["none"]
    sums = torch.zeros(3)
    with torch.no_grad(), reading(model, "none"):
        for ids in windows:
            ours, theirs = (each(ids[None]).logits[0].log_softmax(-1) for each in (model, untouched))
            losses = [-each[:-1].gather(1, ids[1:, None]).sum() for each in (ours, theirs)]
            sums += torch.stack(
                (
                    (theirs.exp() * (theirs - ours)).sum(),
                    losses[0] - losses[1],
                    (ours.argmax(-1) == theirs.argmax(-1)).sum().float(),
                )
            )
    assert found.tokens == 120
    assert found.divergence == pytest.approx(float(sums[0]) / 120, rel=1e-3)
    assert found.loss_change == pytest.approx(float(sums[1]) / 118, rel=1e-3)
    assert found.agreement == pytest.approx(float(sums[2]) / 120)


def test_text_without_anything_remote_is_refused():
    model, layerwise = fresh()
    with pytest.raises(ValueError, match="no window has a token with something beyond the near ones"):
        acquire(model, layerwise, fit=texts(3, length=6), select=texts(1), generator=generator())


def test_slots_have_no_closed_form():
    model, layerwise = fresh(kind="slots")
    with pytest.raises(ValueError, match="slots has no closed form"):
        acquire(model, layerwise, fit=texts(3), select=texts(1), generator=generator())


def test_overflow_is_told():
    model, layerwise = fresh()
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight[0] = torch.inf
    with pytest.raises(ValueError, match=r"overflowed in layers \[1\]"):
        acquire(model, layerwise, fit=texts(5), select=texts(1), generator=generator())


@pytest.mark.parametrize("kind", ["linear", "low_rank"])
def test_a_refit_brings_the_model_nearer_or_changes_nothing(kind):
    model, layerwise = fresh(kind=kind, rank=12)
    acquire(model, layerwise, fit=texts(40), select=texts(6, seed=1), generator=generator())
    before = {layer: map_of(memory.semantic).clone() for layer, memory in memories(model).items()}
    found = refit(model, layerwise, fit=texts(40), select=texts(6, seed=1))
    least = min(found, key=found.get)
    none = {"none": Setting(reads="none")}
    assert judge(model, texts(6, seed=1), none)["none"].divergence == pytest.approx(found[least], rel=1e-4)
    if kind == "linear":
        assert least != (0.0, 0.0)
        assert found[least] < 0.98 * found[(0.0, 0.0)]
    worse = refit(model, layerwise, fit=texts(40), select=texts(6, seed=1), steps=((1.0, -30.0),))
    assert worse[(0.0, 0.0)] < worse[(1.0, -30.0)]
    assert before.keys() == {0, 1}


def test_a_refit_step_is_the_ridge_of_what_the_heads_lack():
    """One layer, one head's worth of algebra: the step solves the normal equations it says it solves."""
    sums = ErrorMoments(xx=torch.eye(4) * 2, xr=torch.arange(8.0).view(4, 2))
    step = sums.step(0.5)
    torch.testing.assert_close(step[:3], sums.xr[:3] / 3)
    torch.testing.assert_close(step[3], sums.xr[3] / 2, rtol=1e-4, atol=1e-4)
