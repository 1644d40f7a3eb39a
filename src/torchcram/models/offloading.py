"""Weights that accelerate keeps elsewhere (``device_map``, ``cpu_offload``), at hand while a layer runs.

Accelerate brings the weights of a module when its ``forward`` is called. A mixer also calls other methods of
its parts, which nothing announces; so all that is away is brought before the mixer runs, and taken back after
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from torchcram.types import Step


@contextmanager
def at_hand(module: nn.Module) -> Iterator[None]:
    """Keep all weights of a module where it computes; they are taken back also after an error."""
    away = [(part, hook) for part in module.modules() for hook in _hooks(part) if hook.offload]
    brought = []
    try:
        for part, hook in away:
            hook.pre_forward(part)
            # A part that is called in between would take its weights away again.
            hook.offload = False
            brought.append((part, hook))
        yield
    finally:
        for part, hook in brought:
            hook.offload = True
            hook.post_forward(part, None)


def _hooks(part: nn.Module) -> list[Any]:
    """The hooks of accelerate that move weights."""
    hook = getattr(part, "_hf_hook", None)
    return [one for one in getattr(hook, "hooks", [hook]) if hasattr(one, "offload")]


def beside(step: Step, device: torch.device) -> Step:
    """Return steps on the device of the hidden states that they come with; accelerate moves those alone."""
    tensors = {field.name: getattr(step, field.name) for field in fields(step)}
    far: dict[str, Any] = {
        name: value for name, value in tensors.items() if isinstance(value, Tensor) and value.device != device
    }
    return replace(step, **{name: value.to(device) for name, value in far.items()}) if far else step
