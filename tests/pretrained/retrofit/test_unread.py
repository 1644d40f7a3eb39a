"""Layers that hardly read give up their cache, if nothing is lost by it."""

import pytest
import torch

from retrofitted import make_retrofitted
from tiny_models import random_windows
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.consolidate import HeldText
from torchcram.pretrained.retrofit.install import memories, retrofit_of
from torchcram.pretrained.retrofit.unread import choose_unread, give_up
from torchcram.pretrained.sites import find_sites

WINDOWS = random_windows(3, seed=2, tokens=40)


def idle(model, layer, need=-30.0):
    """Let a layer's router expect next to nothing of a read."""
    with torch.no_grad():
        memories(model)[layer].router.outer.weight.zero_()
        memories(model)[layer].router.outer.bias.copy_(torch.tensor([need, 0.0]))


def held_text(model):
    return HeldText(Layerwise(model, find_sites(model)), WINDOWS)


def test_a_layer_that_never_reads_gives_up_its_cache():
    model = make_retrofitted()
    idle(model, 1, need=-12.0)
    chosen = choose_unread(model, held_text(model), WINDOWS, reads=0.25)
    assert chosen.layers == (1,) == retrofit_of(model).settings.unread
    assert chosen.after <= chosen.before
    assert memories(model)[1].router is None
    cache = model(input_ids=torch.arange(3, 43)[None], use_cache=True).past_key_values
    assert [layer.bounded for layer in cache.layers] == [False, True]


def test_a_layer_whose_reads_matter_keeps_them():
    model = make_retrofitted(price=1e-6)
    # The last layer reads everything that it may: without it, nothing is as good.
    before = retrofit_of(model).settings
    chosen = choose_unread(model, held_text(model), WINDOWS, reads=0.8)
    assert chosen.layers == ()
    assert chosen.before == chosen.after
    assert retrofit_of(model).settings == before
    assert all(memory.router is not None for memory in memories(model).values())


def test_routers_come_back_where_divergence_rises(monkeypatch):
    model = make_retrofitted()
    idle(model, 1, need=-12.0)
    monkeypatch.setattr("torchcram.pretrained.retrofit.unread.price_for", lambda *args, **kwargs: 1e9)
    chosen = choose_unread(model, held_text(model), WINDOWS, reads=0.25)
    assert chosen.layers == ()
    assert all(memory.router is not None for memory in memories(model).values())


def test_giving_up_adds_to_what_was_given_up():
    model = make_retrofitted(unread=(0,))
    give_up(model, [1])
    assert retrofit_of(model).settings.unread == (0, 1)
    assert HeldText(Layerwise(model, find_sites(model)), WINDOWS).divergence()[1].share == pytest.approx(0)
