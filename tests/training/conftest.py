"""Runs so small that a step takes milliseconds: sequences of 40 steps, two layers of width 16, 32 slots."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from torchcram.memory.consolidation import ControllerConfig
from torchcram.tasks.srcd import SRCDConfig
from torchcram.training.run_config import EvaluationConfig, ModelConfig, RunConfig, TrainingConfig

VOLATILE = ("seconds", "tokens_per_second", "run_dir", "started", "finished")


def tiny_config(**changes: Any) -> RunConfig:
    """Return a run of 12 steps that crosses from acquisition to routing after 5; ``changes`` are dotted paths with ``__`` for the dots."""
    config = RunConfig(
        name="tiny",
        task=SRCDConfig(length=40, patterns=6, key_size=4, values=4),
        model=ModelConfig(d_model=16, layers=2, options={"slots": 32, "state_size": 8}),
        controller=ControllerConfig(acquire_steps=5, reference_every=3, exploration=0.2),
        training=TrainingConfig(steps=12, tokens_per_step=320, checkpoint_every=4, evaluate_every=6, log_every=1, warmup_steps=2),
        evaluation=EvaluationConfig(queries=40, sequences_midway=4, calibration_sequences=0),
    )
    for path, value in changes.items():
        config = config.updated(path.replace("__", "."), value)
    return config


def lasting(folder: Path) -> dict[str, Any]:
    """Return the summary of a run without what depends on the clock and on the folder."""
    summary = json.loads((folder / "summary.json").read_text())
    return {name: value for name, value in summary.items() if name not in VOLATILE}


@pytest.fixture(autouse=True)
def _on_cpu_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bit for bit is promised for the CPU; the machines of the tests may have something else."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> Callable[..., RunConfig]:
    return tiny_config


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Return a function that reads all files of a folder: to show that nothing was touched."""
    return lambda folder: {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def lasting_summary() -> Callable[[Path], dict[str, Any]]:
    return lasting
