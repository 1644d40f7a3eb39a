"""Named configurations: ``demo`` (a laptop, minutes) and ``full`` (the paper's scale). Variants change fields of these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torchcram.memory.consolidation import ControllerConfig
from torchcram.strict import nearest_hint
from torchcram.tasks.srcd import SRCDConfig
from torchcram.training.run_config import EvaluationConfig, ModelConfig, RunConfig, TrainingConfig


def demo() -> RunConfig:
    """SRCD with 256 steps, two layers of width 64: reads fall to the floor within minutes on two cores."""
    return RunConfig(
        name="demo",
        task=SRCDConfig(length=256),
        model=ModelConfig(),
        controller=ControllerConfig(acquire_steps=400),
        training=TrainingConfig(steps=1600, head_weights={"next_observation": 5.0}),
    )


def full() -> RunConfig:
    """SRCD at the paper's scale, 2,048 steps: acquired on short sequences, then lengthened."""
    return RunConfig(
        name="full",
        task=SRCDConfig(length=2048),
        model=ModelConfig(),
        controller=ControllerConfig(acquire_steps=600),
        training=TrainingConfig(steps=3500, length_curriculum=((0, 256), (400, 2048)), head_weights={"next_observation": 5.0}),
        evaluation=EvaluationConfig(sequences_midway=8),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {"demo": demo, "full": full}


def resolve(name: str) -> RunConfig:
    """Return the preset of that name, or the configuration in that YAML file.

    Raises:
        ValueError: if it is neither, with the nearest preset.
    """
    if name in PRESETS:
        return PRESETS[name]()
    if name.endswith((".yaml", ".yml")) or Path(name).exists():
        return RunConfig.from_yaml(Path(name))
    raise ValueError(f"unknown preset {name!r}: {nearest_hint(name, PRESETS)} (a configuration file must end in .yaml)")
