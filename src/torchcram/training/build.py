"""What a run learns, and by which model: built from its configuration."""

from __future__ import annotations

import torch

from torchcram.models.encoder import ENCODERS, EncoderModel
from torchcram.models.sequence import SequenceModel
from torchcram.tasks.base import Task, as_task
from torchcram.tasks.built_in import built_in_task
from torchcram.training.run_config import CustomTaskConfig, RunConfig


def build_task(config: RunConfig, task: Task | None = None) -> Task:
    """Return the task of a run.

    Raises:
        ValueError: if a custom task is not given as an object, is no task, or is given beside a built-in one.
    """
    if isinstance(config.task, CustomTaskConfig):
        if task is None:
            raise ValueError(
                f"the run learns the custom task {config.task.name!r}: pass the task object, "
                "train(config, task=...)"
            )
        return as_task(task)
    if task is not None:
        raise ValueError(
            f"the run learns the built-in task {config.task.kind!r}: set task.kind to 'custom' to "
            "pass a task object"
        )
    return built_in_task(config.task)


def build_model(config: RunConfig, task: Task) -> SequenceModel:
    """Return the untrained model of a run, with weights drawn from its seed.

    ``model.mixer`` may name an encoder of whole series, too.
    """
    rules = config.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if rules.mixer in ENCODERS:
            size, flags = task.input_size, getattr(task, "flags", False)
            model: SequenceModel = EncoderModel(
                task.heads,
                input_size=size,
                flags=flags,
                d_model=rules.d_model,
                encoder=rules.mixer,
                options=rules.options,
            )
        else:
            model = SequenceModel(
                task.heads,
                input_size=task.input_size,
                vocabulary=getattr(task, "vocabulary", None),
                d_model=rules.d_model,
                layers=rules.layers,
                mixer=rules.mixer,
                options=rules.options,
            )
    return model.double() if config.training.precision == "fp64" else model
