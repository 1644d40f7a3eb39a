"""Where and how much to measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor


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

    def lengths(self, *wanted: int) -> Iterator[int]:
        """Yield those of the lengths that are not too long."""
        yield from (length for length in wanted if self.longest is None or length <= self.longest)
