"""One line of a benchmark's result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torchcram.bench.timing import Timing


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was asked, against whom, and how it came out.

    Attributes:
        question: name of the benchmark question.
        device: ``"cpu (2 threads)"`` or the GPU's name.
        length: tokens of a sequence (entries of the memory, in decoding).
        read_rate: share of the tokens that read; None where nothing is routed.
        peer: what ours is compared with.
        timing: the times; None if not measured on this machine.
        limit: the ratio that counting operations allows; None where it is not known.
    """

    question: str
    device: str
    length: int
    read_rate: float | None
    peer: str
    timing: Timing | None
    limit: float | None

    def record(self) -> dict[str, Any]:
        """Return the line as plain values, those of the timing beside the others."""
        blank = {"ours_ms": None, "peer_ms": None, "ratio": None, "spread": None}
        times = blank if self.timing is None else asdict(self.timing)
        plain = {name: value for name, value in vars(self).items() if name != "timing"}
        return {**plain, **times}
