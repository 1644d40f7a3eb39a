"""Runs so small that a step takes milliseconds, and tasks as users write them: for the tests that train,
and for the processes that they start."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from torchcram.memory.phases import ConsolidationRules
from torchcram.tasks.base import Floors
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.training.run_config import EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from torchcram.types import Batch, Head

VOLATILE = ("seconds", "tokens_per_second", "run_dir", "started", "finished")


def tiny_config(**changes: Any) -> RunConfig:
    """Return a run of 12 steps that crosses from acquisition to routing after 5; ``changes`` are dotted
    paths with ``__`` for the dots."""
    config = RunConfig(
        name="tiny",
        task=SRCDConfig(length=40, patterns=6, key_size=4, values=4),
        model=ModelConfig(d_model=16, layers=2, options={"slots": 32, "state_size": 8}),
        controller=ConsolidationRules(acquire_steps=5, reference_every=3, exploration=0.2),
        training=TrainingConfig(
            steps=12, tokens_per_step=320, checkpoint_every=4, evaluate_every=6, log_every=1, warmup_steps=2
        ),
        evaluation=EvaluationConfig(queries=40, sequences_midway=4, calibration_sequences=0),
    )
    for path, value in changes.items():
        config = config.updated(path.replace("__", "."), value)
    return config


def lasting(folder: Path) -> dict[str, Any]:
    """Return the summary of a run without what depends on the clock and on the folder."""
    summary = json.loads((folder / "summary.json").read_text())
    return {name: value for name, value in summary.items() if name not in VOLATILE}


class Sums:
    """Real numbers in; per sequence: is their sum positive (a class), and what is their mean (a value).

    Lengths differ: the rest is padding.
    """

    input_size = 2
    heads = (
        Head(name="positive", kind="classification", size=2, per="sequence"),
        Head(name="mean", kind="regression", size=1, per="sequence"),
    )

    def __init__(self, length: int = 12):
        self.length = length

    def batch(self, size, *, generator, step=0, length=None):
        length = self.length if length is None else length
        inputs, lengths = (
            torch.randn(size, length, 2, generator=generator),
            torch.randint(2, length + 1, (size,), generator=generator),
        )
        mask = torch.arange(length) < lengths[:, None]
        inputs, gap = inputs * mask[..., None], torch.rand(size, length, generator=generator)
        total = inputs[..., 0].sum(1)
        return Batch(
            inputs=inputs,
            gap=gap,
            mask=mask,
            targets={"positive": (total > 0).long(), "mean": (total / lengths)[:, None]},
        )


class Echo:
    """Symbols in; at every step after the first: the symbol of the step before."""

    input_size = None
    vocabulary = 5
    heads = (Head(name="before", kind="classification", size=5),)

    def batch(self, size, *, generator, step=0, length=None):
        symbols = torch.randint(5, (size, length or 12), generator=generator)
        before = torch.cat([torch.full_like(symbols[:, :1], -100), symbols[:, :-1]], 1)
        return Batch(inputs=symbols, gap=torch.ones(symbols.shape), targets={"before": before})


class Wave:
    """A sine in; at every step its next value. No class anywhere."""

    input_size = 1
    heads = (Head(name="next", kind="regression", size=1),)

    def batch(self, size, *, generator, step=0, length=None):
        gap = torch.rand(size, (length or 12) + 1, generator=generator)
        wave = (gap.cumsum(1) + 6 * torch.rand(size, 1, generator=generator)).sin()[..., None]
        return Batch(inputs=wave[:, :-1], gap=gap[:, :-1], horizon=gap[:, 1:], targets={"next": wave[:, 1:]})


class Recall:
    """SRCD under other names, as somebody else would have written it: a head ``said``, slices ``known`` and
    ``new``, and an oracle of its own."""

    calibrated_head = "said"
    skippable = "known"
    patterns = 6

    def __init__(self):
        self.source = SRCD(SRCDConfig(length=40, patterns=6, key_size=4, values=4))
        self.input_size = self.source.input_size
        answer, observation = self.source.heads
        self.heads = (replace(answer, name="said"), replace(observation, name="seen"))

    def batch(self, size, *, generator, step=0, length=None):
        batch = self.source.batch(size, generator=generator, step=step, length=length)
        return replace(
            batch,
            targets={"said": batch.targets["answer"], "seen": batch.targets["next_observation"]},
            slices={"known": batch.slices["recurring"], "new": batch.slices["novel"]},
            info={"pattern": batch.info["pattern"]},
        )

    def oracle(self, batch):
        last = (batch.inputs[..., :2] - batch.targets["seen"]).square().mean()
        return Floors(needs_read=batch.slices["new"], figures={"last_value_mse": float(last)})
