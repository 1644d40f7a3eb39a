"""One process or many: the accelerator, and data and noise that do not depend on how many there are.

Every process draws the whole batch of a step from a generator keyed by (seed, step), and keeps its own rows. So a sample and its noise depend on
the seed, the step and the sample's index only: two processes with half the batch each compute what one process computes.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from jaxtyping import Float
from torch import Tensor

from torchcram.tasks.base import Task
from torchcram.training.run_config import RunConfig
from torchcram.types import Batch


def make_accelerator(config: RunConfig) -> Accelerator:
    """Return the accelerator for this process: CPU, one GPU, DDP or FSDP2, as ``accelerate launch`` says."""
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    precision = "bf16" if config.training.precision == "bf16" else "no"
    return Accelerator(mixed_precision=precision, kwargs_handlers=[unused])


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of a training step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def local_batch(
    config: RunConfig, task: Task, accelerator: Accelerator, step: int, *, exploring: bool
) -> tuple[Batch, Float[Tensor, "batch time layers 4"] | None]:
    """Return this process's share of a training step: its sequences and, if the router explores, their noise.

    Raises:
        ValueError: if the processes cannot share the batch equally.
    """
    length = config.training.length_at(step, getattr(config.task, "length", config.training.tokens_per_step))
    size, world = max(1, config.training.tokens_per_step // length), accelerator.num_processes
    if size % world:
        raise ValueError(f"{size} sequences of {length} steps cannot be shared by {world} processes: change training.tokens_per_step")
    generator = step_generator(config.seed, step)
    batch = task.batch(size, generator=generator, step=step, length=length)
    noise = torch.rand(*batch.gap.shape, config.model.layers, 4, generator=generator) if exploring else None
    first, last = accelerator.process_index * size // world, (accelerator.process_index + 1) * size // world
    batch = batch.rows(first, last).to(accelerator.device)
    if config.training.precision == "fp64":
        batch = batch.double()
    return batch, None if noise is None else noise[first:last].to(accelerator.device)
