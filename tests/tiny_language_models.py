"""Language models of two layers and a few thousand weights, which look as if they had lived (see
``lived.py``), and tokens for them."""

import torch
from torch import Tensor

from lived import live
from torchcram.models.configuration_cram import CRAMConfig
from torchcram.models.modeling_cram import CRAMForCausalLM

VOCABULARY, WIDTH = 23, 16
PAD = 0


def tiny_config(mixer: str = "cram", *, options: dict | None = None, **fields) -> CRAMConfig:
    slots = {"slots": 8} if mixer == "cram" else {}
    return CRAMConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        mixer=mixer,
        mixer_options={**slots, **(options or {})},
        **fields,
    )


def language_model(mixer: str = "cram", *, options: dict | None = None, **fields) -> CRAMForCausalLM:
    """In float64 and evaluation mode."""
    torch.manual_seed(0)
    return (
        live(CRAMForCausalLM(tiny_config(mixer, options=options, **fields)))
        .double()
        .eval()
        .requires_grad_(False)
    )


def tokens(batch: int = 2, time: int = 9, *, seed: int = 1) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(seed))


def left_padded(real: Tensor, lengths: list[int], *, more: int = 0) -> tuple[Tensor, Tensor]:
    """The first tokens of each row, flush right, and the mask."""
    width = max(lengths) + more
    mask = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    padded = torch.full((len(real), width), PAD)
    for row, length in enumerate(lengths):
        padded[row, width - length :] = real[row, :length]
    return padded, mask.long()
