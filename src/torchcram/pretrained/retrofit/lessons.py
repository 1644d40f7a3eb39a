"""What one layer can learn from one window on which every token read: the evidence, the true remote part, and
how much it mattered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.retrofit.evidence import Evidence
from torchcram.pretrained.retrofit.memory import Answered, Asked, LayerMemory
from torchcram.pretrained.retrofit.parts import Part, merge, remote_share


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Of the tokens that had something remote, one after the other.

    Attributes:
        evidence: what was at hand without a read.
        remote: the true remote part.
        gradient: of the sum of the losses, with respect to the heads; None where nobody asked for it.
    """

    evidence: Evidence
    remote: Part
    gradient: Float[Tensor, "tokens heads d_head"] | None = None

    @property
    def average_mass(self) -> Float[Tensor, "tokens heads"]:
        """Log-mass of an average remote token: what semantic memory predicts."""
        return self.remote.log_mass - self.evidence.remote.log()[:, None]

    @property
    def share(self) -> Float[Tensor, "tokens heads"]:
        """Share of the softmax that fell to the remote part."""
        return remote_share(self.evidence.near, self.remote)

    def harm(self, predicted: Part | None) -> Float[Tensor, " tokens"]:
        """Return the harm of a predicted remote part in place of the true one, None for none at all: half the
        square of gradient times change, in nats.

        With the gradient of labels drawn from the model itself its mean is, to second order, the divergence
        from the untouched model (Fisher information).
        """
        assert self.gradient is not None, "harm needs the gradient"
        near = self.evidence.near
        without = near.value if predicted is None else merge(near, predicted)
        change = without.float() - merge(near, self.remote).float()
        return (change * self.gradient).sum((-1, -2)).square() / 2


def lesson_of(memory: LayerMemory, asked: Asked, gradient: Tensor | None = None) -> Lesson:
    """Return the lesson of one pass; ``gradient`` is ``[batch, heads, time, d_head]``."""
    evidence, _ = memory.evidence(asked)
    some = evidence.remote > 0 if asked.real is None else (evidence.remote > 0) & asked.real
    remote = memory.remote(asked)
    return Lesson(
        evidence=evidence.chosen(some),
        remote=Part(value=remote.value[some], log_mass=remote.log_mass[some]),
        gradient=None if gradient is None else gradient.transpose(1, 2)[some].float(),
    )


@contextmanager
def listening(memories: Mapping[int, LayerMemory], hear: Callable[[int, Asked], None]) -> Iterator[None]:
    """Call a function with what each layer is asked, inside ``with``."""

    def hook(layer: int) -> Callable[..., None]:
        return lambda module, args, answered: hear(layer, args[0])

    handles = [memory.register_forward_hook(hook(layer)) for layer, memory in memories.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def changing(memory: LayerMemory, change: Callable[[Asked, Tensor], Tensor]) -> Iterator[None]:
    """Put other heads in the place of a layer's, inside ``with``."""

    def hook(module: Any, args: tuple[Asked], answered: Answered) -> Answered:
        return replace(answered, heads=change(args[0], answered.heads))

    handle = memory.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
