"""Blocks that look as if they had lived: parameters far from their start, filled slots, bindings that fire,
familiarities on both sides of the threshold.

A fresh block hides mistakes: its trace never fires, its slots are empty, every token reads. Tests of laws use
these instead.
"""

import torch
from torch import Tensor, nn

from torchcram.baselines.mixture_of_depths import MixtureOfDepthsBlock
from torchcram.baselines.seqboat import SeqBoatBlock
from torchcram.memory.block import CRAMBlock
from torchcram.memory.episodic import EpisodicMemory
from torchcram.memory.router import NeedFamiliarityRouter
from torchcram.memory.semantic import SlotMemory
from torchcram.types import BlockOutput, MemoryState, Route, RoutingControl, Step


@torch.no_grad()
def live(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """Move every part of a module, a block or a whole model, away from its initial state; returns the
    module."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    for part in module.modules():
        if isinstance(part, EpisodicMemory):
            part.log_sharpness.fill_(3.5)
        if isinstance(part, SlotMemory):
            _fill(part, generator)
    for part in module.modules():
        if isinstance(part, CRAMBlock):
            _decide_both_ways(part, generator)
        if isinstance(part, SeqBoatBlock):
            _balance(
                part, part.configurator.logits.bias[1], part.configurator.log_temperature.exp(), generator
            )
        if isinstance(part, MixtureOfDepthsBlock):
            _balance(part, part.predictor[2].bias, torch.ones(()), generator)
    return module


def _fill(slots: SlotMemory, generator: torch.Generator) -> None:
    """Answers in every slot, and a recognition that is neither zero nor one."""
    slots.radius, slots.sharpness = 2.0, 8.0
    for buffer in (slots.values, slots.usage, slots.reads, slots.quality):
        buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype))
    mixing = (
        torch.randn(slots.whiten.shape, generator=generator, dtype=slots.whiten.dtype)
        / len(slots.whiten) ** 0.5
    )
    slots.whiten.copy_(torch.eye(len(mixing)) + 0.3 * mixing)


def _decide_both_ways(block: CRAMBlock, generator: torch.Generator) -> None:
    """Move the thresholds to where they divide a random stream: half of the steps bind, most are in need,
    half of those are familiar."""
    x, gap = _random_stream(block, generator)
    if block.surprise is not None:
        block.surprise.binds.bias.zero_()
    if isinstance(block.router, NeedFamiliarityRouter):
        need = 1 - run(block, x, gap, control=RoutingControl()).decision.probabilities[..., Route.WORKING]
        block.router.net[2].bias.sub_(need.logit().quantile(0.3))
    else:
        block.router.net.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    decision = run(block, x, gap, control=RoutingControl()).decision
    if block.recall.consolidates:
        block.router.threshold_logit.copy_(decision.familiarity[decision.asked].logit(eps=1e-6).median())


def _balance(block: nn.Module, bias: Tensor, temperature: Tensor, generator: torch.Generator) -> None:
    """Move a bias to where half of a random stream is activated."""
    mode = block.training
    probability = run(
        block.eval(), *_random_stream(block, generator), control=RoutingControl()
    ).decision.probabilities[..., Route.EPISODIC]
    bias.sub_(temperature * probability.logit().median())
    block.train(mode)


def _random_stream(block: nn.Module, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(8, 16, block.mlp.norm.weight.numel(), generator=generator), torch.rand(
        8, 16, generator=generator
    )


def run(
    block: nn.Module,
    hidden_states: Tensor,
    gap: Tensor,
    state: MemoryState | None = None,
    *,
    control: RoutingControl,
    **rest: Tensor | None,
) -> BlockOutput:
    """Pass a stream through a block."""
    return block(hidden_states, Step(gap=gap, control=control, **rest), state)


def tensors(output: BlockOutput) -> dict[str, Tensor]:
    """Everything that a block says about each step, by name."""
    found = {"hidden_states": output.hidden_states}
    if output.decision is not None:
        found |= {name: values for name, values in vars(output.decision).items() if values is not None}
    return found | {f"signal {name}": values for name, values in output.signals.items()}


def state_tensors(state: MemoryState) -> dict[str, Tensor]:
    """The parts of a state, by name."""
    found = {"working": state.working, "surprise": state.surprise}
    if state.episodic is not None:
        found |= vars(state.episodic)
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], *, tolerance: float = 1e-9) -> None:
    """Assert that all tensors of the two agree; NaN agrees with NaN."""
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor,
            theirs[name],
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )
