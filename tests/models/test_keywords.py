"""A keyword of ``forward`` is obeyed or refused, never ignored."""

import pytest
import torch

from tiny_language_models import language_model, tokens
from torchcram.models.modeling_cram import CRAMForCausalLM

PACKED = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])


@pytest.fixture(scope="module")
def cram() -> CRAMForCausalLM:
    return language_model()


@pytest.mark.parametrize("part", ["head", "base"])
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"atention_mask": None}, "unknown keyword 'atention_mask': did you mean 'attention_mask'"),
        ({"output_atentions": True}, "unknown keyword 'output_atentions'"),
        ({"cache_position": torch.arange(9)}, "unknown keyword 'cache_position'"),
        ({"output_attentions": True}, "output_attentions True cannot be obeyed: .* ask for output_routing"),
        ({"output_router_logits": True}, "output_router_logits True cannot be obeyed"),
        ({"skip_logits": True}, "leave use_liger_kernel off"),
        ({"is_causal": False}, "is_causal False cannot be obeyed: the model never looks ahead"),
        ({"token_type_ids": torch.ones(2, 9)}, "token_type_ids cannot be obeyed"),
        ({"token_type_ids": [1]}, "token_type_ids cannot be obeyed"),
        ({"cu_seq_lens_q": torch.tensor([0, 4, 9])}, "packed sequences are told by position_ids"),
        ({"seq_idx": PACKED}, "packed sequences are told by position_ids"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_obeyed_is_refused(cram, part, keywords, message):
    with pytest.raises(ValueError, match=message):
        (cram if part == "head" else cram.model)(tokens(), **keywords)


def test_what_is_so_anyway_may_be_said(cram):
    """As tokenizers, collators and other models' callers say it."""
    ids = tokens(1)
    said = {
        "output_attentions": False,
        "output_router_logits": None,
        "is_causal": True,
        "token_type_ids": torch.zeros_like(ids),
        "num_items_in_batch": torch.tensor(8),
        "shift_labels": None,
    }
    assert torch.equal(cram(ids, **said).logits, cram(ids).logits)
    flattened = {"cu_seq_lens_q": torch.tensor([0, 4, 9]), "max_length_q": 5, "position_ids": PACKED}
    torch.testing.assert_close(cram(ids, **flattened).logits, cram(ids, position_ids=PACKED).logits)


def test_labels_may_be_shifted_before(cram):
    ids = tokens()
    shifted = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], 1)
    torch.testing.assert_close(cram(ids, labels=ids, shift_labels=shifted).loss, cram(ids, labels=ids).loss)


def test_a_tuple_is_returned_where_one_is_wanted(cram, monkeypatch):
    output = cram(tokens(), use_cache=False, return_dict=False)
    monkeypatch.setattr(cram.config, "return_dict", False)
    assert torch.equal(cram(tokens(), use_cache=False)[0], output[0])
