"""How fast ``generate`` is, against a dense language model of equal size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from torchcram.bench.drawn_router import force
from torchcram.bench.measurement import Measurement
from torchcram.bench.setting import Setting
from torchcram.bench.timing import seconds, take_turns
from torchcram.memory.block import CRAMBlock
from torchcram.strict import optional

# Of the two language models.
WIDTH, DEPTH, HEADS, VOCABULARY = 512, 8, 8, 32_000


@torch.no_grad()
def generate(setting: Setting) -> Iterator[Measurement]:
    """``generate`` of 500 tokens after 2,048, width 512, 8 layers, vocabulary 32,000, against a dense
    Llama of equal width and depth.
    """
    for length in setting.lengths("generate"):
        for batch in (1, 8):
            prompt = torch.randint(VOCABULARY, (batch, length), generator=setting.generator).to(
                setting.device
            )
            new = max(2, 500 * length // 2048)
            ours, llama, free = _ours(setting, 0.1), _llama(setting), _ours(setting, 0.0)
            for model in (ours, llama, free):
                _generated(model, prompt[:, :32], 2)
            both = [partial(_generated, model, prompt, new) for model in (ours, llama)]
            timing = take_turns(*both, rounds=max(2, min(setting.rounds, 3)), warm_up=0)
            # Amdahl: the same model without a read.
            limit = timing.peer_ms / (1e3 * seconds(partial(_generated, free, prompt, new)))
            peer = f"Llama of Transformers, batch {batch}"
            yield Measurement(
                question="generate",
                device=setting.name,
                length=length,
                read_rate=0.1,
                peer=peer,
                timing=timing,
                limit=limit,
            )


def _generated(model: Any, prompt: Tensor, new: int) -> None:
    model.generate(
        prompt,
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
        attention_mask=torch.ones_like(prompt),
    )


def _ours(setting: Setting, rate: float) -> nn.Module:
    optional("transformers", extra="hf")
    from torchcram.models.configuration_cram import CRAMConfig
    from torchcram.models.modeling_cram import CRAMForCausalLM

    config = CRAMConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=DEPTH, mixer_options={"heads": HEADS}
    )
    model = CRAMForCausalLM(config).eval().to(setting.device)
    for block in model.model.mixers:
        force(cast(CRAMBlock, block), rate, setting.generator)
    return model


def _llama(setting: Setting) -> nn.Module:
    transformers = optional("transformers", extra="hf")
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
    }
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, **sizes, max_position_embeddings=4096, bos_token_id=None, eos_token_id=None
    )
    return transformers.LlamaForCausalLM(config).eval().to(setting.device)
