"""Where and how much to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# How long the sequences of each question are.
LENGTHS = {
    "routed-attention": (2048, 8192, 32768),
    "routed-attention-backward": (2048, 8192),
    "scan": (2048,),
    "train-step": (2048, 8192),
    "decode": (8192,),
    "generate": (2048,),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how much to measure.

    Attributes:
        device: to run on.
        rounds: turns of ours and of the peer.
        longest: questions leave out longer sequences; None for no bound.
        generator: of the inputs.
    """

    device: torch.device
    rounds: int = 7
    longest: int | None = None
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    @property
    def name(self) -> str:
        """The device in words."""
        return (
            f"cpu ({torch.get_num_threads()} threads)"
            if self.device.type == "cpu"
            else torch.cuda.get_device_name(self.device)
        )

    def randn(self, *shape: int) -> Tensor:
        """Return standard normal numbers on the device."""
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def lengths(self, question: str) -> list[int]:
        """Return those lengths of a question that are not too long."""
        return [length for length in LENGTHS[question] if self.longest is None or length <= self.longest]

    def require_lengths(self, named: Sequence[str]) -> None:
        """Check that there is something to measure: for each question that was named, or for any.

        Raises:
            ValueError: naming the shortest length.
        """
        empty = [question for question in named or LENGTHS if not self.lengths(question)]
        if not empty or (not named and len(empty) < len(LENGTHS)):
            return
        needed = [min(LENGTHS[question]) for question in empty]
        raise ValueError(
            f"longest {self.longest} leaves out all sequences of {', '.join(empty)}: use at least "
            f"{max(needed) if named else min(needed)}"
        )
