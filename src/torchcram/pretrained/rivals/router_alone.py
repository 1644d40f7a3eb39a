"""Near attention and a router, no memory: what is not read is as if it were not there. In the manner of AHA
(arXiv 2512.22562), with the router that learned need from the harm of near attention alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchcram.pretrained.retrofit.install import memories
from torchcram.pretrained.rivals.ablations import silent
from torchcram.pretrained.rivals.contender import hooked
from torchcram.pretrained.rivals.retrofitted import Retrofitted


class RouterAlone(Retrofitted):
    """A token reads where the need is more than the price; nothing is familiar."""

    name = "near and router"
    source = "in the manner of AHA, arXiv 2512.22562"

    @contextmanager
    def acting(self, model: Any) -> Iterator[None]:
        """Silence the memories, and let nothing be familiar."""
        hooks: dict[Any, Any] = {}
        for memory in memories(model).values():
            hooks[memory.semantic] = silent
            if memory.router is not None:
                hooks[memory.router] = _unfamiliar
        with hooked(hooks):
            yield


def _unfamiliar(module: Any, args: Any, told: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    log_need, logit = told
    return log_need, torch.full_like(logit, -torch.inf)
