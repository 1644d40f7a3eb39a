"""The table of built-in tasks, and what holds for each of them."""

import ast
from pathlib import Path
from typing import get_args

import pytest

import torchcram
from torchcram.tasks.base import as_task, calibrated_head, check_members, floors_of, generator_of
from torchcram.tasks.built_in import DEFAULT_TASK, TASKS, BuiltInTaskConfig, built_in_task


def test_types_know_the_configurations_of_the_table():
    assert set(get_args(BuiltInTaskConfig)) == {config for config, _ in TASKS.values()}
    assert DEFAULT_TASK.kind in TASKS


@pytest.mark.parametrize("kind", TASKS)
def test_a_configuration_names_its_task(kind):
    config = TASKS[kind][0].parse({"kind": kind, "length": 64})
    assert config.kind == kind
    task = as_task(built_in_task(config))
    batch = task.batch(4, generator=generator_of(0, 0))
    check_members(task, batch)
    assert calibrated_head(task).name in batch.targets
    # What an oracle must read is asked for, and no consolidated memory could spare it.
    needed = floors_of(task, batch).needs_read
    assert needed.any()
    assert (batch.targets[calibrated_head(task).name][needed] != -100).all()
    assert not (needed & batch.group(task.skippable)).any()


def test_what_a_configuration_draws_before_a_step_is_what_it_says():
    config = DEFAULT_TASK.updated("length", 64).updated("drift_at", 8)
    assert [config.before(step).drift_at for step in (4, 8, 9)] == [None, None, 8]
    assert config.updated("kind", "srcd").before(8) == config.updated("drift_at", None)


def test_training_knows_no_task_by_name():
    """But the presets, which are runs of SRCD."""
    folder = Path(torchcram.__file__).parent / "training"
    known = {"torchcram.tasks.base", "torchcram.tasks.built_in"}
    for file in folder.glob("*.py"):
        imported = {
            node.module
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchcram.tasks")
        }
        assert file.name == "presets.py" or imported <= known, file.name
