"""Tiny models whose memories say something, so that what they say can be wrong."""

from __future__ import annotations

import torch

from tiny_models import tiny_model
from torchcram.pretrained.retrofit.install import install, memories
from torchcram.pretrained.retrofit.settings import RetrofitSettings

SINKS, WINDOW, KEPT = 2, 5, 3
SUPPORTED = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma3_text",
    "phi3",
    "olmo2",
    "gpt_neox",
    "gpt2",
    "opt",
    "falcon",
)


def make_retrofitted(family: str = "llama", *, price: float = 0.5, kept: int = KEPT, **settings):
    """Return a tiny model with random memories; at this price some tokens read and some do not."""
    model = tiny_model(family)
    install(model, RetrofitSettings(sinks=SINKS, window=WINDOW, kept=kept, price=price, **settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for memory in memories(model).values():
            for parameter in memory.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
            if memory.keeper is not None:
                weight = memory.keeper.weight
                weight.copy_(torch.randn(weight.shape, generator=generator))
    return model.eval()
