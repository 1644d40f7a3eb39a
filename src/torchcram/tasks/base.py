"""What a task is: something that draws batches from a passed generator and says which heads they train.

Any object with the members of :class:`Task` can be trained: see ``docs/tutorial.md`` for one's own data. What
only the task knows, it may bring, too. Training asks for these members by name, and does without them where
a task has none:

==================  ======================================================================================
member              what it is
==================  ======================================================================================
``vocabulary``      number of symbols, for symbolic inputs (``input_size`` None)
``flags``           whether half of the features say which of the others were observed (encoders of series)
``oracle(batch)``   the least that the batch takes: :class:`Floors`
``calibrated_head`` name of the classification head whose answers calibration watches; without it nothing is
                    calibrated
``skippable``       name of the slice whose reads consolidation can spare; without it, all real steps
``patterns``        number of recurring patterns; ``Batch.info["pattern"]`` says which one a skippable step
                    asks for (-1: none), and training counts how often each was met
==================  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor

from torchcram.strict import StrictConfig, require_choice
from torchcram.types import Batch, Head

TaskConfigT = TypeVar("TaskConfigT", bound="TaskConfig")


def generator_of(seed: int, index: int, *, fresh: bool = False) -> torch.Generator:
    """Return the generator of a training step, or of a batch of ``fresh`` sequences, which no training step
    of any seed draws.

    Torch's generator on the CPU looks at the lower 32 bits of its key only. So keys of training lie in [0,
    2^30), all others in [2^30, 2^32).
    """
    key = seed * 1_000_003 + index
    if not fresh:
        return torch.Generator().manual_seed(key % 2**30)
    key %= 2**32
    return torch.Generator().manual_seed(key if key >= 2**30 else key + 2**30)


class TaskConfig(StrictConfig):
    """What every configuration of a task says.

    Attributes:
        kind: name of the task.
        length: steps of its longest sequences.
    """

    kind: str
    length: int = Field(ge=1)

    def check_length(self, length: int) -> None:
        """Raise ValueError if the task cannot draw sequences of ``length`` steps."""

    def before(self: TaskConfigT, step: int) -> TaskConfigT:
        """Return the task without what begins at training step ``step`` or later: until then the two draw the
        same sequences.
        """
        del step
        return self


@dataclass(frozen=True, kw_only=True)
class Floors:
    """The least that a batch takes, by an oracle that knows by heart whatever outlives a sequence.

    Attributes:
        needs_read: steps at which even the oracle must read, in one layer.
        figures: its other figures by name, such as the error of the best predictor; means over the batch.
    """

    needs_read: Bool[Tensor, "batch time"]
    figures: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """A source of batches."""

    @property
    def input_size(self) -> int | None:
        """Number of continuous features a step carries; None if a step is one symbol, whose number a
        member ``vocabulary`` then tells.
        """
        ...

    @property
    def heads(self) -> tuple[Head, ...]:
        """The outputs that a model of this task needs."""
        ...

    def batch(
        self, size: int, *, generator: torch.Generator, step: int = 0, length: int | None = None
    ) -> Batch:
        """Draw ``size`` sequences.

        Args:
            size: number of sequences.
            generator: the only source of randomness.
            step: training step, for tasks that change while a model learns.
            length: number of steps of each sequence; None for the task's own (a length curriculum passes
                shorter ones).
        """
        ...


def as_task(candidate: object) -> Task:
    """Return an object as the task that it is.

    Raises:
        ValueError: for an object that is no task, or whose calibrated head is none of its class heads.
    """
    missing = [member for member in ("input_size", "heads", "batch") if not hasattr(candidate, member)]
    if missing:
        raise ValueError(
            f"{type(candidate).__name__} is no task: it lacks {', '.join(missing)} (see "
            "torchcram.tasks.base.Task)"
        )
    task = cast(Task, candidate)
    calibrated_head(task)
    return task


def check_members(task: Task, batch: Batch) -> None:
    """Check on a batch what a task says about its batches.

    Raises:
        ValueError: for an oracle that does not fit the batch, or a skippable slice that the batch lacks.
    """
    floors_of(task, batch)
    skippable_steps(task, batch)


def calibrated_head(task: Task) -> Head | None:
    """Return the head whose answers calibration watches; None where the task names none.

    Raises:
        ValueError: if the task has no classification head of that name.
    """
    name = getattr(task, "calibrated_head", None)
    if name is None:
        return None
    heads = {head.name: head for head in task.heads if head.kind == "classification"}
    return heads[require_choice(f"calibrated_head of {type(task).__name__}", name, heads)]


def floors_of(task: Task, batch: Batch) -> Floors | None:
    """Return the least that a batch takes; None where the task brings no oracle.

    Raises:
        ValueError: if what the oracle says does not fit the batch.
    """
    oracle = getattr(task, "oracle", None)
    if oracle is None:
        return None
    least: Floors = oracle(batch)
    needs_read = least.needs_read
    if needs_read.shape != batch.gap.shape or needs_read.dtype != torch.bool:
        raise ValueError(
            f"the oracle of {type(task).__name__} returns needs_read as {needs_read.dtype} "
            f"{list(needs_read.shape)}: it must be torch.bool {list(batch.gap.shape)}, one value a step"
        )
    return least


def skippable_steps(task: Task, batch: Batch) -> Bool[Tensor, "batch time"]:
    """Return the real steps whose reads consolidation can spare.

    Raises:
        ValueError: if the task names a slice that the batch lacks.
    """
    name = getattr(task, "skippable", None)
    if name is None:
        return batch.real
    return batch.group(require_choice(f"skippable slice of {type(task).__name__}", name, batch.slices))
