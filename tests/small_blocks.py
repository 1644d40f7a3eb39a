"""Small CRAM blocks with parameters that live, and a stream for them."""

import torch
from torch import Tensor

from lived import live, tensors
from torchcram.memory.block import CRAMBlock
from torchcram.memory.observed import ObservedQualityBlock
from torchcram.types import BlockOutput, Learning, RoutingControl

WIDTH, BATCH, TIME = 32, 4, 12
ROUTED, DENSE = RoutingControl(), RoutingControl(reads="all")
TRAINING = RoutingControl(learning=Learning(exploration=0.3, consolidate=True))
DECISION = ("route", "probabilities", "familiarity", "explored", "weight", "asked")


def block(**options) -> CRAMBlock:
    return live(CRAMBlock(WIDTH, slots=24, **options))


def observed_block(**options) -> CRAMBlock:
    return live(ObservedQualityBlock(WIDTH, slots=24, **options))


def stream(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, noise = (
        torch.randn(BATCH, TIME, WIDTH, generator=generator),
        torch.rand(BATCH, TIME, 4, generator=generator),
    )
    return {"hidden_states": x, "gap": torch.rand(BATCH, TIME, generator=generator), "noise": noise}


def decisions(output: BlockOutput) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors(output).items() if name in DECISION}
