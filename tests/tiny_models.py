"""Tiny random models of every decoder family, a tokenizer of single characters, and text: nothing is
fetched."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

VOCABULARY = 64
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OWN = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 8},
    "mistral": {"sliding_window": 8},
    "jamba": {
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "mamba_d_state": 4,
    },
}
LEFT_OUT = {
    "gpt2": set(SIZES) - {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"},
    "gpt_neox": {"num_key_value_heads"},
}
FAMILIES = (
    "gpt2",
    "gpt_neox",
    "opt",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "phi3",
    "falcon",
    "olmo2",
    "jamba",
)


def tiny_model(family: str, **changes: Any) -> Any:
    """Return a model of a family, with fixed weights that are large enough for attention to matter."""
    transformers = __import__("transformers")
    sizes = {key: value for key, value in SIZES.items() if key not in LEFT_OUT.get(family, ())}
    config = transformers.AutoConfig.for_model(family, **{**sizes, **OWN.get(family, {}), **changes})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


class CharTokenizer:
    """One token per character."""

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = True
    ) -> dict[str, list[int]]:
        return {"input_ids": [ord(sign) % VOCABULARY for sign in text]}

    def decode(self, ids: Sequence[int]) -> str:
        return chr(64 + ids[0])


def documents(count: int = 30, length: int = 320, *, seed: int = 0) -> list[str]:
    """Return documents of random words."""
    generator = random.Random(seed)
    words = ["".join(generator.choice("abcdefgh") for _ in range(generator.randint(2, 5))) for _ in range(40)]
    return [" ".join(generator.choice(words) for _ in range(length // 4))[:length] for _ in range(count)]


def random_windows(count: int, *, seed: int, tokens: int = 24) -> list[Tensor]:
    """Return windows of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 64, (tokens,), generator=generator) for _ in range(count)]
