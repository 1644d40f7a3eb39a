"""Named configurations: ``mini`` (a minute), ``demo`` (a laptop, minutes) and ``full`` (the paper's scale).

Variants change fields of these.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchcram.memory.phases import ConsolidationRules
from torchcram.strict import nearest_hint
from torchcram.strict_yaml import load_yaml
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.training.run_config import EvaluationConfig, ModelConfig, RunConfig, TrainingConfig


def mini() -> RunConfig:
    """SRCD with 128 steps and 40 patterns, for comparisons of many runs: about a minute on one core after
    acquisition.
    """
    return RunConfig(
        name="mini",
        task=SRCDConfig(length=128, patterns=40),
        model=ModelConfig(),
        # Little time to route: the price climbs fast, and semantic memory may answer soon.
        controller=ConsolidationRules(
            acquire_steps=400,
            plateau_steps=400,
            price_start=0.03,
            price_growth=1.05,
            steady_price=True,
            caution_start=2.0,
            caution_step=0.02,
        ),
        training=TrainingConfig(
            steps=800, tokens_per_step=2048, decay_share=0.2, head_weights={"next_observation": 5.0}
        ),
        evaluation=EvaluationConfig(
            queries=2000, sequences_midway=16, calibration_sequences=200, risk_tolerance=0.01
        ),
    )


def demo() -> RunConfig:
    """SRCD with 256 steps, two layers of width 64: reads fall to the floor within minutes on two cores."""
    return RunConfig(
        name="demo",
        task=SRCDConfig(length=256),
        model=ModelConfig(),
        controller=ConsolidationRules(acquire_steps=400, mature_steps=100),
        training=TrainingConfig(steps=1400, head_weights={"next_observation": 5.0}),
        evaluation=EvaluationConfig(calibration_sequences=600, risk_tolerance=0.003),
    )


def full() -> RunConfig:
    """SRCD at the paper's scale, 2,048 steps: acquired on short sequences, then lengthened."""
    return RunConfig(
        name="full",
        task=SRCDConfig(length=2048),
        model=ModelConfig(),
        controller=ConsolidationRules(acquire_steps=500),
        training=TrainingConfig(
            steps=2000, length_curriculum=((0, 256), (350, 2048)), head_weights={"next_observation": 5.0}
        ),
        evaluation=EvaluationConfig(sequences_midway=8, calibration_sequences=260, risk_tolerance=0.005),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {"mini": mini, "demo": demo, "full": full}


def resolve(name: str) -> RunConfig:
    """Return the preset of that name, or the configuration in that YAML file.

    Raises:
        ValueError: if it is neither, with the nearest preset.
    """
    if name in PRESETS:
        return PRESETS[name]()
    if name.endswith((".yaml", ".yml")) or Path(name).exists():
        return from_yaml(Path(name))
    raise ValueError(
        f"unknown preset {name!r}: {nearest_hint(name, PRESETS)} (a configuration file must end in .yaml)"
    )


def from_yaml(path: Path) -> RunConfig:
    """Read a YAML file: a tree of configuration keys, on top of the defaults or of the preset that its key
    ``preset`` names.

    Raises:
        ValueError: if the file is missing, is not YAML, or does not describe a run.
    """
    try:
        # Some editors begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read the configuration {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file: a configuration is YAML") from None
    try:
        data = load_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a mapping of configuration keys, got {type(data).__name__}")
    if "preset" not in data:
        return RunConfig.parse(data)
    preset = str(data.pop("preset"))
    if preset not in PRESETS:
        raise ValueError(f"{path}: unknown preset {preset!r}: {nearest_hint(preset, PRESETS)}")
    return RunConfig.parse(_merged(PRESETS[preset]().model_dump(mode="json"), data))


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` on top, mapping by mapping."""
    both = {
        key: _merged(base[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **changes, **both}
