"""Every contender keeps its word: what it costs, what it changes, and that it leaves no trace."""

import pytest
import torch

from retrofitted import KEPT, SINKS, WINDOW, make_retrofitted
from tiny_models import random_windows
from torchcram.pretrained.judging.frontier import compare, frontier_figure
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.judge import judge_ways
from torchcram.pretrained.retrofit.lessons import listening
from torchcram.pretrained.rivals.ablations import Shuffled
from torchcram.pretrained.rivals.contender import cache_share
from torchcram.pretrained.rivals.dropped_entries import DroppedEntries, attend_to_kept, importance
from torchcram.pretrained.rivals.dropped_layers import DroppedLayers
from torchcram.pretrained.rivals.linear_layers import LinearLayers
from torchcram.pretrained.rivals.near_alone import NearAlone
from torchcram.pretrained.rivals.table import CONTENDERS
from torchcram.report.style import png

TOKENS = 48


def windows(count=3, seed=0):
    return random_windows(count, seed=seed, tokens=TOKENS)


def silence(done):
    del done


def points_of(make, model, shares=(0.5, 0.2)):
    contender = make()
    with torch.no_grad():
        contender.fit(model, windows(4), advance=silence)
        return contender, contender.points(model, windows(2, seed=1), shares, advance=silence)


@torch.no_grad()
def logits(model, point=None):
    ids = windows(1, seed=2)[0][None]
    if point is None:
        return model(ids, use_cache=False).logits
    with point.way():
        return model(ids, use_cache=False).logits


@pytest.mark.parametrize("make", CONTENDERS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_contender_acts_for_a_while_and_leaves_no_trace(make, family):
    model = make_retrofitted(family)
    before = logits(model)
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    _, points = points_of(make, model)
    assert points
    for point in points:
        changed = logits(model, point)
        assert changed.isfinite().all()
        assert torch.equal(changed, logits(model, point))
        with reading(model, "all"):
            assert not torch.allclose(changed, logits(model), atol=1e-4)
        with pytest.raises(RuntimeError, match="on purpose"), point.way():
            raise RuntimeError("on purpose")
    assert torch.equal(logits(model), before)
    assert hooks == [
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    ]
    assert all(memory.reach.window == WINDOW for memory in memories(model).values())


@pytest.mark.parametrize("make", [make for make in CONTENDERS if make is not Shuffled])
def test_what_comes_later_changes_nothing_before(make):
    """Contenders are causal, but for shuffled memory, which is an ablation of whole passes."""
    model = make_retrofitted()
    _, points = points_of(make, model)
    ids = windows(1, seed=2)[0][None]
    other = ids.clone()
    other[:, 30:] = (other[:, 30:] + 5) % 60 + 3
    for point in points:
        with torch.no_grad(), point.way():
            a, b = model(ids, use_cache=False).logits, model(other, use_cache=False).logits
        assert torch.allclose(a[:, :30], b[:, :30], atol=1e-5)


def test_the_retrofit_itself_is_what_it_was():
    model = make_retrofitted()
    _, points = points_of(CONTENDERS[0], model)
    with reading(model, "none"):
        assert torch.equal(logits(model, points[-1]), logits(model))
    assert [point.label for point in points] == ["50% reads", "20% reads", "no reads"]


@pytest.mark.parametrize("make", [make for make in CONTENDERS if make not in (NearAlone,)])
def test_budgets_are_kept(make):
    model = make_retrofitted()
    _, points = points_of(make, model, shares=(0.5, 0.25))
    found = judge_ways(model, windows(6, seed=3), {point.label: point.way for point in points})
    reads = [each.between().reads for each in found.values()]
    if make in (LinearLayers, DroppedLayers):
        # One layer of two reads wherever something is remote, then none.
        assert reads[0] == pytest.approx(0.5 * (1 - (SINKS + WINDOW + KEPT) / TOKENS))
        assert reads[-1] == 0
    else:
        assert reads[0] == pytest.approx(0.5, abs=0.15)
        assert reads[1] == pytest.approx(0.25, abs=0.12)


@pytest.mark.parametrize("make", CONTENDERS[:3])
def test_a_given_price_is_paid(make):
    model = make_retrofitted()
    given = make(prices={0.5: 0.07}).points(model, (windows(1)[0],), (0.5,), advance=silence)[0]
    with reading(model, price=0.07), make().acting(model):
        expected = logits(model)
    assert torch.equal(logits(model, given), expected)


def test_silent_memory_is_near_attention_alone():
    """Zeroed memory without reads is what near attention alone is, where nothing is kept; shuffled memory is
    not.
    """
    model = make_retrofitted(kept=0)
    zeroed, shuffled, near = (points_of(make, model)[1] for make in (CONTENDERS[1], CONTENDERS[2], NearAlone))
    assert torch.allclose(logits(model, zeroed[-1]), logits(model, near[0]), atol=1e-6)
    assert not torch.allclose(logits(model, shuffled[-1]), logits(model, near[0]), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("share", [2.0, -1.0], ids=["some", "all"])
def test_shuffled_memory_says_the_same_to_others(share, monkeypatch):
    """Prediction by prediction, of an average remote token: the same ones, in another order; whether memory
    is asked about some tokens or about all.
    """
    monkeypatch.setattr("torchcram.pretrained.retrofit.memory.NEARLY_ALL", share)
    model = make_retrofitted()
    heard = []

    def hook(module, args, part):
        some = args[0].remote > 0
        heard.append((part.value[some], part.log_mass[some] - args[0].remote[some].log()[:, None]))

    ids = windows(1, seed=2)[0][None]
    point = points_of(CONTENDERS[2], model)[1][-1]
    for way in (lambda: reading(model, "none"), point.way):
        with way():
            handle = memories(model)[0].semantic.register_forward_hook(hook)
            assert model(ids, use_cache=False).logits.isfinite().all()
            handle.remove()
    for plain, shuffled in zip(*heard, strict=True):
        assert not torch.allclose(plain, shuffled)
        assert torch.allclose(plain.flatten(1).sort(0).values, shuffled.flatten(1).sort(0).values, atol=1e-5)


def test_near_attention_alone_keeps_nothing_behind_its_window():
    keeping, plain = make_retrofitted(), make_retrofitted(kept=0)
    (_, first), (_, second) = points_of(NearAlone, keeping), points_of(NearAlone, plain)
    assert torch.equal(logits(keeping, first[0]), logits(plain, second[0]))
    assert all(memory.reach.kept == KEPT for memory in memories(keeping).values())


def test_a_wider_window_sees_more_and_keeps_more():
    model = make_retrofitted()
    _, points = points_of(NearAlone, model)
    found = judge_ways(model, windows(), {point.label: point.way for point in points})
    reads = [each.between().reads for each in found.values()]
    assert [point.label for point in points] == ["window 5", "window 10", "window 20", "window 40"]
    assert reads[0] == 0
    assert reads == sorted(reads)
    remote = torch.arange(TOKENS) - WINDOW + 1 - SINKS
    wide = (remote - 3 * WINDOW).clamp(min=0)
    expected = ((remote.clamp(min=0) - wide) / remote.clamp(min=1)).mean()
    assert reads[2] == pytest.approx(float(expected))
    expected = [(SINKS + n * WINDOW) / TOKENS for n in (1, 2, 4, 8)]
    assert [point.cache for point in points] == pytest.approx(expected)


def asked_of(model, ids):
    asked = {}
    with (
        torch.no_grad(),
        reading(model, "all"),
        listening(memories(model), lambda layer, each: asked.update({layer: each})),
    ):
        model(ids, use_cache=False)
    return asked


def test_a_linear_layer_is_the_least_squares_map():
    model = make_retrofitted()
    contender, _ = points_of(LinearLayers, model)
    seen = []
    with torch.no_grad(), reading(model, "all"):
        handle = memories(model)[0].register_forward_hook(
            lambda module, args, answered: seen.append((args[0].hidden, answered.heads))
        )
        for ids in windows(4):
            model(ids[None], use_cache=False)
        handle.remove()
    x, y = torch.cat([hidden[0] for hidden, _ in seen]), torch.cat([h[0].transpose(0, 1) for _, h in seen])
    x, y = torch.cat((x, torch.ones(len(x), 1)), 1), y.flatten(1)
    best = torch.linalg.lstsq(x.double(), y.double()).solution
    error = (x.double() @ best - y).square().sum()
    found = (x @ contender.maps[0] - y).square().sum()
    assert float(found / error) == pytest.approx(1, abs=0.02)
    assert sorted(contender.order) == [0, 1]


def test_layers_that_change_least_are_dropped_first():
    model = make_retrofitted()
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.mul_(1e-3)
    assert points_of(DroppedLayers, model)[0].order == [1, 0]
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.mul_(1e6)
    contender, points = points_of(DroppedLayers, model)
    assert contender.order == [0, 1]
    assert points[-1].cache == 0


def test_all_layers_dropped_is_a_model_without_attention():
    model = make_retrofitted()
    _, points = points_of(DroppedLayers, model)
    found = logits(model, points[-1])
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    assert torch.allclose(found, logits(model), atol=1e-5)


@torch.no_grad()
def test_importance_is_the_most_attention_from_afar():
    model = make_retrofitted()
    asked = asked_of(model, windows(1)[0][None])[1]
    reach = memories(model)[1].reach
    wanted, ever = importance(asked, reach)
    assert ever[0].tolist() == [SINKS <= place < TOKENS - WINDOW for place in range(TOKENS)]
    place, head = 11, 1
    most = 0.0
    for query in range(place + WINDOW, TOKENS):
        for row in (2 * head, 2 * head + 1):
            scores = asked.query[0, row, query] @ asked.entries.key[0, head, : query + 1].T
            most = max(most, float(scores.softmax(-1)[place]))
    length = float(asked.entries.value[0, head, place].norm())
    assert float(wanted[0, place, head]) == pytest.approx(torch.tensor(most * length).log().item(), rel=1e-4)


@torch.no_grad()
def test_all_entries_kept_is_the_untouched_layer_and_none_is_near_alone():
    from torchcram.pretrained.retrofit.reference import near_reference, whole_reference
    from torchcram.pretrained.rivals.contender import empty_tally

    model = make_retrofitted(kept=0)
    asked, reach = asked_of(model, windows(1)[0][None])[0], memories(model)[0].reach
    every = torch.ones(1, TOKENS, 2, dtype=torch.bool)
    for kept, reference, share in ((every, whole_reference, 1.0), (~every, near_reference, 0.0)):
        tally = empty_tally()
        heads = attend_to_kept(asked, reach, kept, tally)
        assert torch.allclose(heads, reference(asked.query, asked.entries, reach).value, atol=1e-5)
        beyond = 1 - (SINKS + WINDOW) / TOKENS
        assert float(tally.reads[0] / tally.reads[1]) == pytest.approx(share * beyond)
        assert float(tally.kept[0] / tally.kept[1]) == pytest.approx(
            1.0 if share else (SINKS + WINDOW) / TOKENS
        )


@torch.no_grad()
def test_entries_are_not_dropped_behind_a_cache():
    model = make_retrofitted()
    _, points = points_of(DroppedEntries, model)
    cache = model(torch.arange(3, 20)[None]).past_key_values
    with pytest.raises(ValueError, match="judge without a cache"), points[0].way():
        model(torch.tensor([[5]]), past_key_values=cache)


def test_the_cache_of_a_retrofit_is_counted():
    assert cache_share(make_retrofitted(kept=0), context=100) == 1
    assert cache_share(make_retrofitted(kept=0, unread=(0,)), context=70) == pytest.approx((0.1 + 1) / 2)
    assert cache_share(make_retrofitted(kept=0, untouched=(0,)), context=70) == 1
    # What is kept stands beside the whole of a layer that reads.
    assert cache_share(make_retrofitted(unread=(0,)), context=100) == pytest.approx((0.1 + 1.03) / 2)
    assert cache_share(make_retrofitted(unread=(0, 1)), context=3) == 1


def test_all_contenders_are_compared_and_drawn():
    model = make_retrofitted()
    stages = {}

    def progress(name, total):
        stages[name] = [total, 0]

        def advance(done):
            stages[name][1] += done

        return advance

    found = compare(
        model, fit=windows(3), select=windows(2, seed=1), test=windows(2, seed=2), shares=(0.5, 0.2),
        progress=progress,
    )  # fmt: skip
    names = list(dict.fromkeys(each.contender for each in found))
    assert names == [make().name for make in CONTENDERS]
    plain = judge_ways(model, windows(2, seed=2), {"none": lambda: reading(model, "none")})["none"].between()
    (ours,) = [each for each in found if (each.contender, each.label) == (names[0], "no reads")]
    # Where everything is there, what is kept stands there twice.
    cache = 1 + KEPT / TOKENS
    assert (ours.divergence, ours.reads, ours.cache) == (plain.divergence, 0, cache)
    dropped = [each for each in found if each.contender == "dropped entries"]
    assert 0 < dropped[1].cache < dropped[0].cache < 1
    assert stages["learns"][0] == stages["learns"][1]
    assert stages["is judged"] == [2 * TOKENS, 2 * TOKENS]
    assert png(frontier_figure(found)).startswith(b"\x89PNG")
