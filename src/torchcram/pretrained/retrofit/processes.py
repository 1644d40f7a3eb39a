"""One process or many: each takes its own windows of a text, and all of them learn what came of all windows.

Every process holds the whole model. What is summed over windows is summed over processes, so that several
processes make what one would make, up to rounding. It is handed on explicitly: a function that is not given
any processes never waits for another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from torchcram.ops.collective import world_sum

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Those that make one retrofit together.

    Attributes:
        rank: number of this process.
        count: of all processes.
        device: on which this one computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def mine(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return the parts of this process."""
        return parts[self.rank :: self.count]

    @torch.no_grad()
    def add(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over all processes, in place."""
        for tensor in tensors if self.count > 1 else ():
            tensor.copy_(world_sum(tensor.to(self.device)))

    @torch.no_grad()
    def follow(self, *tensors: Tensor) -> None:
        """Replace tensors by those of the first process, in place: rounding may differ between processes."""
        for tensor in tensors if self.count > 1 else ():
            first = tensor.detach().to(self.device).contiguous()
            dist.broadcast(first, src=0)
            tensor.copy_(first)

    def joined(self, made: Sequence[Any]) -> list[Any]:
        """Return what all processes made of their parts, in the order of the parts.

        Args:
            made: what this process made of each of its own.
        """
        if self.count == 1:
            return list(made)
        everybody: list[Any] = [None] * self.count
        dist.all_gather_object(everybody, [_carried(each, torch.device("cpu")) for each in made])
        longest = max(len(each) for each in everybody)
        ordered = [each[place] for place in range(longest) for each in everybody if place < len(each)]
        return [_carried(each, self.device) for each in ordered]

    def told(self, work: Callable[[], Any]) -> Any:
        """Return what the first process finds, on every process.

        Raises:
            ValueError: on every process, if the first one raises it.
        """
        if self.count == 1:
            return work()
        answer: list[Any] = [None, None]
        failure: ValueError | None = None
        if self.first:
            try:
                answer[0] = work()
            except ValueError as error:
                failure, answer[1] = error, str(error)
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise failure or ValueError(answer[1])
        return answer[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


def _carried(made: Any, device: torch.device) -> Any:
    return made.to(device) if isinstance(made, Tensor) else made


ALONE = Processes()


def processes_here() -> Processes:
    """Return the processes that ``accelerate launch`` started, this one among them; :data:`ALONE` without.

    A group is joined where there is one to join.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu)
    return Processes(rank=state.process_index, count=state.num_processes, device=state.device)
