"""How fast a training step is at the floor of reads, against the same step with every read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import cast

import torch
from torch import Tensor

from torchcram.bench.drawn_router import force
from torchcram.bench.measurement import Measurement
from torchcram.bench.setting import Setting
from torchcram.bench.timing import take_turns
from torchcram.memory.block import CRAMBlock
from torchcram.models.sequence import SequenceModel
from torchcram.types import Batch, Head, Learning, RoutingControl

FLOOR = 0.016


def train_step(setting: Setting) -> Iterator[Measurement]:
    """A training step at the floor of SRCD against the same step with every read: two layers of width 64,
    4,096 tokens.
    """
    for length in setting.lengths("train-step"):
        model = SequenceModel([Head(name="next", kind="regression", size=36)], input_size=36).to(
            setting.device
        )
        for block in model.blocks:
            force(cast(CRAMBlock, block), FLOOR, setting.generator)
        batch = _batch(setting, model, length)
        controls = (
            RoutingControl(learning=Learning(exploration=0.02, consolidate=True)),
            RoutingControl(reads="all", learning=Learning()),
        )
        noise = torch.rand(*batch.gap.shape, len(model.blocks), 4, generator=setting.generator).to(
            setting.device
        )
        # The routers draw lots: exploration stays at its least rate, as in a router that is sure.
        both = [
            partial(_step, model, batch, control, noise if control.reads == "routed" else None)
            for control in controls
        ]
        timing = take_turns(*both, rounds=setting.rounds)
        for block in model.blocks:
            force(cast(CRAMBlock, block), 0.0, setting.generator)
        # Amdahl: the same step without a read.
        limit = take_turns(
            partial(_step, model, batch, RoutingControl(learning=Learning()), noise),
            both[1],
            rounds=setting.rounds,
        ).ratio
        peer = "the same step with every read (acquisition)"
        yield Measurement(
            question="train-step",
            device=setting.name,
            length=length,
            read_rate=FLOOR,
            peer=peer,
            timing=timing,
            limit=limit,
        )


def _batch(setting: Setting, model: SequenceModel, length: int) -> Batch:
    size = max(1, 4096 // length)
    inputs = setting.randn(size, length, int(model.input_size or 0))
    return Batch(inputs=inputs, gap=torch.ones(size, length, device=setting.device), targets={"next": inputs})


def _step(model: SequenceModel, batch: Batch, control: RoutingControl, noise: Tensor | None) -> None:
    output = model(batch, control=control, noise=noise)
    aside = [value for block in output.blocks for value in block.losses.values()]
    total = torch.stack([*model.task_losses(output.outputs, batch).values(), *aside]).sum()
    total.backward()
    model.zero_grad()
    for block, said in zip(model.blocks, output.blocks, strict=True):
        block.after_step(said)
