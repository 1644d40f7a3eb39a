"""One process or many: the accelerator, and data and noise that do not depend on how many there are.

Every process draws the whole batch of a step from a generator keyed by (seed, step), and keeps its own rows.
So a sample and its noise depend on the seed, the step and the sample's index only: two processes with half
the batch each compute what one process computes.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from jaxtyping import Float
from torch import Tensor

from torchcram.tasks.base import Task, generator_of
from torchcram.training.run_config import RunConfig
from torchcram.types import Batch


def make_accelerator(*, trackers: Sequence[str] = (), folder: Path | None = None) -> Accelerator:
    """Return the accelerator for this process: CPU, one GPU, DDP or FSDP2, as ``accelerate launch`` says.

    Precision is the trainer's affair: accelerate's own would stay with the model, and with every later run of
    the same process.

    Args:
        trackers: names of accelerate's trackers.
        folder: where those write that have no place of their own.
    """
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        mixed_precision="no",
        kwargs_handlers=[unused],
        log_with=list(trackers) or None,
        project_dir=None if folder is None else str(folder),
    )


def leave_group() -> None:
    """Leave the group of processes, if this is one of many: call it last, when nothing refers to the model
    any more.

    A process that ends while a wrapped model is alive may be aborted by threads that wait for the others: the
    launcher calls that a failure.
    """
    gc.collect()
    PartialState().destroy_process_group()


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of a training step.

    Its key lies below 2^30, see :func:`torchcram.tasks.base.generator_of`.
    """
    return generator_of(seed, step)


def sequences_at(config: RunConfig, step: int, *, processes: int) -> int:
    """Return how many sequences all processes together train on at a step.

    Raises:
        ValueError: if the processes cannot share them equally.
    """
    length = config.training.length_at(step, config.task.length)
    size = max(1, config.training.tokens_per_step // length)
    if size % processes:
        fitting = length * processes * max(1, round(size / processes))
        raise ValueError(
            f"{size} sequences of {length} steps cannot be shared by {processes} processes: set "
            f"training.tokens_per_step to {fitting}"
        )
    return size


def local_batch(
    config: RunConfig, task: Task, accelerator: Accelerator, step: int, *, exploring: bool
) -> tuple[Batch, Float[Tensor, "batch time layers 4"] | None]:
    """Return this process's share of a training step: its sequences and, if the router explores, their noise.

    Raises:
        ValueError: if the processes cannot share the batch equally, or the task draws another number of
            sequences.
    """
    size, world = sequences_at(config, step, processes=accelerator.num_processes), accelerator.num_processes
    length = config.training.length_at(step, config.task.length)
    generator = step_generator(config.seed, step)
    batch = task.batch(
        size, generator=generator, step=step, length=None if length == config.task.length else length
    )
    if batch.size != size and not (
        world == 1 and 0 < batch.size < size and getattr(task, "draws_fewer", False)
    ):
        raise ValueError(f"the task drew {batch.size} sequences where {size} were asked for")
    noise = torch.rand(*batch.gap.shape, config.model.layers, 4, generator=generator) if exploring else None
    first, last = (
        (index * batch.size) // world for index in (accelerator.process_index, accelerator.process_index + 1)
    )
    batch = batch.rows(first, last).to(accelerator.device)
    if config.training.precision == "fp64":
        batch = batch.double()
    return batch, None if noise is None else noise[first:last].to(accelerator.device)
