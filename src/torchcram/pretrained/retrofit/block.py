"""An attention block of a pretrained model, with the three memories inside: the same object, of a class
derived from its own.

Projections, norms, rotation and output are those of the block; what lies between them is
:class:`torchcram.pretrained.retrofit.memory.LayerMemory`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from torchcram.memory.budget import counted
from torchcram.pretrained.retrofit.entries import fresh_entries
from torchcram.pretrained.retrofit.families import (
    TABLE,
    family_of,
    projected_output,
    rotated,
    score_scale,
)
from torchcram.pretrained.retrofit.memory import Answered, Asked, LayerMemory

# The submodule that a block gets.
NAME = "cram"
CACHES = ("past_key_values", "layer_past")


class RetrofittedBlock:
    """Comes before the block's own class: see :func:`enter`."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return the block's output, and None in place of attention weights, which nobody computes."""
        given = _bound(self, args, kwargs)
        hidden, memory = given["hidden_states"], getattr(self, NAME)
        family = TABLE[own_class(self).__name__]
        address, key, value = family.project(self, hidden)
        angles, scale = given.get("position_embeddings"), score_scale(self, family)
        alignment = memory.control.alignment(len(hidden), hidden.shape[1], hidden.device)
        key, value, query, address, hidden = (
            alignment.gathered(states)
            for states in (
                rotated(key, angles),
                value,
                rotated(address, angles) * scale,
                address * scale,
                hidden,
            )
        )
        layer = _cache_layer(self, memory, given)
        score = memory.scores(hidden)
        if layer is None:
            entries = fresh_entries(key, value, score, kept=memory.reach.kept)
        else:
            entries = layer.write(key, value, alignment, score)
        answered: Answered = memory(
            Asked(
                hidden=hidden,
                query=query,
                address=address,
                entries=entries,
                real=None if alignment.order is None else alignment.real,
                spent=None if layer is None else layer.spent,
            )
        )
        if layer is not None:
            real = None if alignment.order is None else alignment.real
            layer.spent = counted(layer.spent, answered.decision.read, real)
            layer.leave(answered.left.sums, answered.left.kept)
        return projected_output(self, family, alignment.scattered(answered.heads)), None


def enter(module: nn.Module, memory: LayerMemory) -> None:
    """Put memories into an attention block, in place."""
    family_of(module)
    original = type(module)
    module.__class__ = type(original.__name__, (RetrofittedBlock, original), {"_original": original})
    module.add_module(NAME, memory)


def leave(module: nn.Module) -> None:
    """Undo :func:`enter`."""
    original = own_class(module)
    delattr(module, NAME)
    module.__class__ = original


def own_class(module: Any) -> type[nn.Module]:
    """Return the class that a block with memories had before."""
    return type(module)._original


def _bound(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments by the names of the block's own forward: families pass some by place."""
    return _signature(own_class(module).forward).bind(module, *args, **kwargs).arguments


@cache
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(forward)


def _cache_layer(module: Any, memory: LayerMemory, given: Mapping[str, Any]) -> Any:
    brought = next((given[name] for name in CACHES if given.get(name) is not None), None)
    if brought is None:
        return None
    from torchcram.pretrained.retrofit.cache import cache_layer

    return cache_layer(brought, module.layer_idx, reach=memory.reach, bounded=memory.router is None)
