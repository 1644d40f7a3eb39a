"""A visit leaves no trace, whatever happens inside."""

import pytest
import torch

from tiny_models import FAMILIES, tiny_model
from torchcram.pretrained.analysis.harm import measured
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.analysis.ridge import LinearProbe
from torchcram.pretrained.capture import capture
from torchcram.pretrained.local_attention import local_attention
from torchcram.pretrained.sites import find_sites

IDS = torch.arange(3, 15)


def trace(model):
    """Everything a visitor could leave behind: attributes, hooks, configuration, modes, gradients."""
    modules = [
        (
            name,
            sorted(vars(module)),
            [len(value) for key, value in sorted(vars(module).items()) if "hooks" in key],
        )
        for name, module in model.named_modules()
    ]
    return (
        modules,
        model.config.to_dict(),
        [module.training for module in model.modules()],
        [parameter.grad for parameter in model.parameters()],
    )


def output(model):
    with torch.no_grad():
        return model(input_ids=IDS[None], use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_in_any_family(family):
    model = tiny_model(family)
    before, logits = trace(model), output(model)
    sites = find_sites(model)
    with capture(sites, see=lambda number, x, y: None, replace=lambda number, x, old: torch.zeros_like(old)):
        assert not torch.equal(output(model), logits)
        assert trace(model) != before
    assert trace(model) == before
    assert torch.equal(output(model), logits)
    layerwise = Layerwise(model, sites)
    calls = layerwise.embed(IDS)
    torch.testing.assert_close(
        layerwise.logits(layerwise.run(calls.embedded, calls), calls), logits[0], rtol=1e-4, atol=1e-5
    )
    measured(model, sites, IDS, probes=[LinearProbe(weight=torch.zeros(32, 32), bias=torch.zeros(32))] * 2)
    local_attention(model, sites, reach=2)[0](torch.zeros(12, 32))
    assert trace(model) == before
    assert torch.equal(output(model), logits)


@pytest.mark.parametrize("where", ["see", "replace"])
def test_nothing_is_left_after_an_error(where):
    model = tiny_model("gpt2")
    before, logits = trace(model), output(model)
    sites = find_sites(model)

    def fail(*args):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), capture(sites, **{where: fail}):
        output(model)
    assert trace(model) == before
    assert torch.equal(output(model), logits)


def test_nothing_is_left_of_layer_by_layer_after_an_error():
    model = tiny_model("gpt2")
    layerwise = Layerwise(model, find_sites(model))
    before = trace(model)
    with pytest.raises(IndexError):
        layerwise.embed(torch.tensor([9999]))
    assert trace(model) == before


def test_what_was_there_before_stays():
    model = tiny_model("llama")
    calls = []
    handle = model.model.layers[0].self_attn.register_forward_hook(lambda *args: calls.append(1))
    sites = find_sites(model)
    calls.clear()
    with capture(sites, see=lambda number, x, y: None):
        output(model)
    output(model)
    assert len(calls) == 2
    handle.remove()


def test_replacing_by_the_same_changes_nothing_and_inputs_are_those_of_the_block():
    model = tiny_model("llama")
    sites, logits = find_sites(model), output(model)
    seen = {}
    with capture(
        sites, see=lambda number, x, y: seen.setdefault(number, x), replace=lambda number, x, old: old
    ):
        assert torch.equal(output(model), logits)
    with torch.no_grad():
        first = model.model.layers[0].input_layernorm(model.model.embed_tokens(IDS))
    assert torch.equal(seen[0], first)


def test_the_attention_function_makes_no_difference():
    model = tiny_model("llama")
    sites = find_sites(model)
    heads = {}
    for kind in ("eager", "sdpa"):
        model.set_attn_implementation(kind)
        with capture(sites, see=lambda number, x, y, kind=kind: heads.__setitem__((kind, number), y)):
            output(model)
    torch.testing.assert_close(heads["eager", 1], heads["sdpa", 1], rtol=1e-4, atol=1e-5)


def test_layer_by_layer_refuses_layers_that_hand_on_more_than_hidden_states():
    model = tiny_model("llama")
    sites = find_sites(model)
    layer = model.model.layers[1]
    # As a model would that passes something past the list of layers.
    secret = {}
    model.model.embed_tokens.register_forward_hook(lambda module, args, out: secret.update(x=out))
    model.model.norm.register_forward_hook(
        lambda module, args, out: out + (0 if vars(layer).get("forward") else 5.0)
    )
    with pytest.raises(ValueError, match="hands more than hidden states from layer to layer"):
        Layerwise(model, sites)
