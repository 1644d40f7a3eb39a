"""No configuration that ships rots: two steps of each, one that acquires and one that routes, then a small
evaluation.

Configurations that differ in their length, schedule or evaluation alone take the same two steps: each kind is
run once, on the fewest tokens that hold a sequence. Every preset is among them, every file under
``experiments/``, and what every claim trains; of a sweep of one number its two ends.
"""

import math
from pathlib import Path

import pytest
import torch

from torchcram.reproduce.claim import Claim, Method
from torchcram.reproduce.claims import CLAIMS
from torchcram.training.build import build_task
from torchcram.training.distributed import make_accelerator
from torchcram.training.presets import PRESETS, resolve
from torchcram.training.run_config import RunConfig
from torchcram.training.summary import evaluate_midway
from torchcram.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments").glob("**/*.yaml"))
# Longer sequences take the same code, and longer.
LONGEST = 96


def shrunk(config: RunConfig) -> RunConfig:
    """The same run with one sequence a step, two steps, and one sequence of evaluation."""
    length = min(config.task.length, LONGEST)
    changes = {
        "training.length_curriculum": [],
        "task.length": length,
        "training.tokens_per_step": length,
        "training.steps": 2,
        "controller.acquire_steps": 0 if config.controller.acquire_steps == 0 else 1,
        "evaluation.sequences_midway": 1,
        "evaluation.queries": 1,
        "evaluation.calibration_sequences": 0,
    }
    for path, value in changes.items():
        config = config.updated(path, value)
    return config


def ends(claim: Claim) -> list[Method]:
    """The methods of a claim; of a family, which differs in one number, the two ends."""
    families: dict[str, list[Method]] = {}
    for method in claim.methods:
        families.setdefault(method.family or method.name, []).append(method)
    return [
        method
        for family in families.values()
        for method in {family[0].name: family[0], family[-1].name: family[-1]}.values()
    ]


def shipped() -> dict[str, RunConfig]:
    """Every shipped configuration by a name for it, shrunk; of those that are then the same, the first."""
    found = {name: preset() for name, preset in PRESETS.items()}
    found |= {str(file.relative_to(ROOT)): resolve(str(file)) for file in FILES}
    found |= {
        f"{claim.name} {method.name}": method.config(PRESETS["mini"](), seed=0)
        for claim in CLAIMS.values()
        for method in ends(claim)
    }
    kinds: dict[str, tuple[str, RunConfig]] = {}
    for name, config in found.items():
        small = shrunk(config)
        kinds.setdefault(small.model_copy(update={"name": "any"}).digest(), (name, small))
    return dict(kinds.values())


SHIPPED = shipped()


@pytest.mark.parametrize("name", SHIPPED)
def test_two_steps_and_an_evaluation(name):
    config = SHIPPED[name]
    trainer = Trainer(config, build_task(config), make_accelerator())
    before = {name: value.clone() for name, value in trainer.plain.named_parameters() if value.requires_grad}
    records = [trainer.train_step() for _ in range(2)]
    assert all(math.isfinite(value) for record in records for value in record["losses"].values())
    assert any(
        not torch.equal(before[name], value)
        for name, value in trainer.plain.named_parameters()
        if name in before
    )
    if trainer.learns_routes:
        assert trainer.phase == "consolidate"
    assert 0.0 <= evaluate_midway(trainer)["any_layer_read_rate"] <= 1.0


def test_every_mixer_and_every_field_that_a_claim_changes_is_among_them():
    for claim in CLAIMS.values():
        configs = [method.config(PRESETS["mini"](), seed=0) for method in ends(claim)]
        assert {config.model.mixer for config in configs} <= {
            config.model.mixer for config in SHIPPED.values()
        }
        assert {path for method in ends(claim) for path in method.changes} == {
            path for method in claim.methods for path in method.changes
        }
    assert {config.task.kind for config in SHIPPED.values()} == {"srcd", "transfer"}
