"""Small batches of SRCD, and :class:`Diary`: what a sequence says, re-derived from its inputs alone."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.types import Batch

SHORT = 96


def config(**changed) -> SRCDConfig:
    return SRCDConfig(
        **{"length": SHORT, "patterns": 12, "binding_share": 0.3, "query_share": 0.25, **changed}
    )


def draw(config: SRCDConfig, size: int = 8, seed: int = 0, **arguments) -> Batch:
    return SRCD(config).batch(size, generator=torch.Generator().manual_seed(seed), **arguments)


def tensors(batch: Batch) -> dict[str, Tensor]:
    named = {"inputs": batch.inputs, "gap": batch.gap, "horizon": batch.horizon}
    return {
        **named,
        **batch.targets,
        **{f"slice {k}": v for k, v in batch.slices.items()},
        **{f"info {k}": v for k, v in batch.info.items()},
    }


def parts(batch: Batch, config: SRCDConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Split inputs into flags (none if typeless), keys and values."""
    _, flags, keys, values = batch.inputs.split(
        [2, 0 if config.typeless else 2, config.key_size, config.values], dim=-1
    )
    return flags, keys, values


@dataclass
class Diary:
    """What one sequence says, step by step."""

    task: SRCD
    patterns: dict
    inputs: Tensor
    bound: dict = field(default_factory=dict)
    history: dict = field(default_factory=dict)
    steps: list = field(default_factory=list)

    def __post_init__(self):
        config = self.task.config
        for time, features in enumerate(self.inputs[:, -config.key_size - config.values :].tolist()):
            key, value = tuple(features[: config.key_size]), features[config.key_size :]
            self.steps.append(
                self._bind(key, value.index(1.0), time)
                if any(value)
                else self._ask(key, time)
                if any(key)
                else None
            )

    def _bind(self, key: tuple, value: int, time: int) -> dict:
        self.bound[key] = (value, time)
        self.history.setdefault(key, []).append(value)
        return {"kind": "binding", "pattern": self.patterns.get(key, -1), "value": value}

    def _ask(self, key: tuple, time: int) -> dict:
        value, since = self.bound.get(key, (None, time))
        return {
            "kind": "query",
            "pattern": self.patterns.get(key, -1),
            "value": value,
            "distance": time - since,
            "first": self.history.get(key, [None])[0],
        }


def diaries(batch: Batch, config: SRCDConfig) -> list[Diary]:
    task = SRCD(config)
    patterns = {tuple(key): index for index, key in enumerate(task.keys.tolist())}
    return [Diary(task, patterns, row) for row in batch.inputs]


def assert_share(flags: Tensor, expected: float) -> None:
    error = (expected * (1 - expected) / flags.numel()) ** 0.5
    assert abs(flags.double().mean().item() - expected) < 5 * error
