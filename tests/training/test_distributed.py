"""Two processes with half the batch each are one process with the whole batch: weights, slots, phases,
losses."""

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState
from safetensors.torch import load_file

from torchcram.tasks.srcd import SRCD
from torchcram.training.distributed import leave_group, local_batch, step_generator
from training_together import learn_together


def launched(tmp_path: Path, *arguments: str, processes: int) -> str:
    """Run a script or module in several processes on the CPU (``accelerate launch`` starts several on GPUs
    only); return what they printed."""
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        *arguments,
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        launch, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=1200
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """State and weights after 20 steps in two processes, and in one."""
    folders = [tmp_path_factory.mktemp(f"processes{processes}") for processes in (2, 1)]
    learn_together(folders[0], processes=2)
    learn_together(folders[1], processes=1)
    two, one = (
        {
            **json.loads((folder / "state.json").read_text()),
            "weights": load_file(folder / "model.safetensors"),
        }
        for folder in folders
    )
    return two, one


def flat(content, path=()) -> dict[tuple, float]:
    """Every number of nested dictionaries and lists, by its path."""
    if isinstance(content, dict):
        return {
            key: value for name, part in content.items() for key, value in flat(part, (*path, name)).items()
        }
    if isinstance(content, list):
        return {
            key: value
            for index, part in enumerate(content)
            for key, value in flat(part, (*path, index)).items()
        }
    return {path: content}


@pytest.mark.slow
def test_the_comparison_is_one_of_two_with_one_and_explores_beyond_acquisition(both):
    two, one = both
    assert (two["processes"], one["processes"]) == (2, 1)
    assert {record["phase"] for record in two["records"]} == {"acquire", "consolidate"}
    assert two["explored"] > 0
    assert two["weights"]["blocks.0.semantic.usage"].count_nonzero() > 4


@pytest.mark.slow
def test_weights_and_semantic_slots_are_equal(both):
    two, one = (run["weights"] for run in both)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["records", "consolidator", "exposures", "counts"])
def test_losses_rates_phases_and_counts_are_equal(both, part):
    two, one = (flat(run[part]) for run in both)
    assert set(two) == set(one)
    real = {key for key, value in one.items() if isinstance(value, float)}
    assert {key: two[key] for key in set(two) - real} == {key: one[key] for key in set(one) - real}
    assert {key: two[key] for key in real} == pytest.approx(
        {key: one[key] for key in real}, rel=1e-9, abs=1e-9
    )


@pytest.mark.slow
def test_the_whole_run_works_in_two_processes(tmp_path):
    """Training, evaluation, summary, resuming: by the command line, as a user would."""
    options = [
        "training.steps=6",
        "training.tokens_per_step=256",
        "training.evaluate_every=3",
        "task.length=64",
        "controller.acquire_steps=2",
    ]
    options += [
        "model.d_model=16",
        "model.options.slots=32",
        "evaluation.queries=12",
        "evaluation.sequences_midway=2",
        "evaluation.calibration_sequences=0",
    ]
    arguments = [
        "-m",
        "torchcram",
        "train",
        "demo",
        "--out",
        "run",
        "--quiet",
        *(part for option in options for part in ("--set", option)),
    ]
    printed = launched(tmp_path, *arguments, processes=2)
    assert printed.count("any-layer read rate") == 1
    kinds = [
        json.loads(line)["kind"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert (kinds.count("train"), kinds.count("eval")) == (2, 2)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 6


class Process(Accelerator):
    """Stands for one process of several."""

    device, process_index, num_processes = torch.device("cpu"), 0, 1

    def __init__(self, index: int, processes: int):
        self.process_index, self.num_processes = index, processes


def test_each_process_takes_its_own_rows_of_the_same_batch_and_noise(tiny):
    task = SRCD(tiny().task)
    whole, noise = local_batch(tiny(), task, Process(0, 1), 3, exploring=True)
    parts = [local_batch(tiny(), task, Process(index, 4), 3, exploring=True) for index in range(4)]
    assert torch.equal(torch.cat([batch.inputs for batch, _ in parts]), whole.inputs)
    assert torch.equal(torch.cat([part for _, part in parts]), noise)
    assert noise.shape == (8, 40, 2, 4)
    assert local_batch(tiny(), task, Process(0, 1), 3, exploring=False)[1] is None


def test_a_task_that_draws_another_number_is_named(tiny):
    class Short(SRCD):
        def batch(self, size, *, generator, step=0, length=None):
            return super().batch(size - 1, generator=generator, step=step, length=length)

    with pytest.raises(ValueError, match="drew 7 sequences where 8 were asked for"):
        local_batch(tiny(), Short(tiny().task), Process(0, 1), 0, exploring=False)


def test_who_leaves_the_group_has_let_go_of_the_model_first(monkeypatch):
    """A model in a cycle of references outlives its last name: it must be gone before the group is."""
    seen = []
    model = torch.nn.Linear(2, 2)
    model.itself = [model]
    alive = weakref.ref(model)
    monkeypatch.setattr(PartialState, "destroy_process_group", lambda state: seen.append(alive()))
    del model
    leave_group()
    assert seen == [None]


def test_steps_and_seeds_have_generators_of_their_own():
    draws = {
        (seed, step): float(torch.rand((), generator=step_generator(seed, step)))
        for seed in range(4)
        for step in range(4)
    }
    assert len(set(draws.values())) == 16
