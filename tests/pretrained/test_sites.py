"""Attention is found by what it computes, in every family; what is not understood is refused in words."""

import pytest
import torch
from torch import nn

from tiny_models import FAMILIES, tiny_model
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import at_rest, find_sites


@pytest.mark.parametrize("family", FAMILIES)
def test_the_blocks_of_every_family_are_found_and_their_heads_make_their_output(family):
    model = tiny_model(family)
    sites = find_sites(model)
    assert [site.layer for site in sites] == ([1, 3] if family == "jamba" else [0, 1])
    assert {(site.heads, site.head_size, site.width) for site in sites} == {(4, 8, 32)}
    heads, outputs = {}, {}

    def keep(number, x, output):
        outputs[number] = output
        return output

    with capture(sites, see=lambda number, x, y: heads.__setitem__(number, y), replace=keep), torch.no_grad():
        model(input_ids=torch.arange(12)[None], use_cache=False)
    for number, site in enumerate(sites):
        weight, bias = site.output_map()
        torch.testing.assert_close(
            heads[number].double() @ weight + bias, outputs[number].double(), rtol=1e-4, atol=1e-5
        )


def test_an_encoder_decoder_is_refused():
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4, vocab_size=32)
    with pytest.raises(ValueError, match="encoder-decoder model: only causal"):
        find_sites(transformers.T5ForConditionalGeneration(config))


def test_a_model_that_looks_ahead_is_refused():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=32,
        max_position_embeddings=16,
    )
    with pytest.raises(ValueError, match="looks at later tokens"):
        find_sites(transformers.BertForMaskedLM(config))


def test_a_model_without_attention_is_refused():
    transformers = pytest.importorskip("transformers")
    config = transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=32, state_size=4)
    with pytest.raises(
        ValueError, match="no attention was found in MambaForCausalLM: families known to work are gpt2"
    ):
        find_sites(transformers.MambaForCausalLM(config))


def test_what_is_no_model_of_transformers_is_refused():
    with pytest.raises(ValueError, match="Linear is no model of Transformers"):
        find_sites(nn.Linear(2, 2))


def test_attention_whose_output_is_no_projection_is_refused():
    class Doubled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, heads):
            return 2 * self.inner(heads)

    model = tiny_model("llama")
    model.model.layers[0].self_attn.o_proj = Doubled(model.model.layers[0].self_attn.o_proj)
    with pytest.raises(
        ValueError, match=r"layers\.0\.self_attn' \(LlamaAttention\) does not end in a linear projection"
    ):
        find_sites(model)


def test_shared_attention_is_refused():
    model = tiny_model("llama")
    model.model.layers[1].self_attn = model.model.layers[0].self_attn
    with pytest.raises(ValueError, match="runs 2 times in one pass"):
        find_sites(model)


def test_modes_come_back_also_after_an_error():
    model = tiny_model("gpt2")
    model.train()
    model.transformer.h[0].attn.eval()
    before = [module.training for module in model.modules()]

    def visit():
        with at_rest(model):
            assert not any(module.training for module in model.modules())
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        visit()
    assert [module.training for module in model.modules()] == before
