"""Ctrl-C between steps: held back until the step is complete, so that what is saved is never half a step."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

import torch

from torchcram.ops.collective import world_sum


class Interruption(AbstractContextManager["Interruption"]):
    """Takes note of the first Ctrl-C; a second one stops at once. Outside the main thread it does nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def anywhere(self, device: torch.device) -> bool:
        """Whether any process of the run was asked to stop; all of them learn it at the same step."""
        return bool(world_sum(torch.tensor(float(self.requested), device=device)) > 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
