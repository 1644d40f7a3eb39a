"""A lesson: its divergence and its gradients are those of the definition."""

import pytest
import torch

from retrofitted import make_retrofitted
from tiny_models import random_windows
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit import distil as module
from torchcram.pretrained.retrofit.consolidate import taught_parameters
from torchcram.pretrained.retrofit.distil import (
    ReadCount,
    distil,
    divergence_gradient,
    divergence_reference,
    untouched_states,
)
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.sites import find_sites


@pytest.fixture(params=["llama", "gpt2", "qwen3"])
def layerwise(request):
    model = make_retrofitted(request.param).double().requires_grad_(False)
    for parameter in taught_parameters(model).values():
        parameter.requires_grad_(True)
    return Layerwise(model, find_sites(model))


def test_divergence_and_gradients_are_those_of_the_definition(layerwise, monkeypatch):
    monkeypatch.setattr(module, "LOGITS", 7)
    (ids,) = random_windows(1, seed=1, tokens=40)
    parameters = taught_parameters(layerwise.model)
    calls, untouched = untouched_states(layerwise, ids)
    with reading(layerwise.model, "routed"):
        now = layerwise.run(calls.embedded, calls)
        expected = divergence_reference(layerwise, calls, untouched, now)
        wanted = torch.autograd.grad(expected, list(parameters.values()), allow_unused=True)
    divergence, count = distil(layerwise, ids, reads="routed")
    assert divergence == pytest.approx(float(expected.detach()), abs=1e-9)
    assert divergence > 0.01
    assert 0 < count.share < 1
    for (name, parameter), gradient in zip(parameters.items(), wanted, strict=True):
        if gradient is None:
            assert parameter.grad is None, name
        else:
            assert torch.allclose(parameter.grad, gradient, atol=1e-9, rtol=0), name


def test_the_untouched_model_is_its_own_teacher(layerwise):
    (ids,) = random_windows(1, seed=2, tokens=40)
    divergence, count = distil(layerwise, ids, reads="all")
    assert divergence == pytest.approx(0, abs=1e-9)
    assert all(parameter.grad is None for parameter in taught_parameters(layerwise.model).values())
    calls, untouched = untouched_states(layerwise, ids)
    assert divergence_gradient(layerwise, calls, untouched, untouched)[1].abs().max() < 1e-9
    # What is not near to the last 40 - 7 tokens, nor kept.
    assert count.share == pytest.approx(30 / 40)


def test_reads_are_counted_by_layer_and_no_longer_than_asked():
    model = make_retrofitted()
    layers = memories(model)
    with ReadCount(layers) as count, reading(model, "all"):
        model(input_ids=torch.arange(3, 43)[None])
    model(input_ids=torch.arange(3, 43)[None])
    assert count.tokens == 80
    assert count.share == count.share_of(0) == count.share_of(1) == pytest.approx(30 / 40)
    with ReadCount(layers) as count, reading(model, "none"):
        model(input_ids=torch.arange(3, 43)[None])
    assert count.share == 0
