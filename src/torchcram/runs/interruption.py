"""Ctrl-C, and requests to end (SIGTERM, SIGHUP): held back until the step is complete, so that what is saved
is never half a step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType, TracebackType

import torch

from torchcram.ops.collective import world_sum

Handler = Callable[[int, FrameType | None], object]

# Windows has no SIGHUP.
REQUESTS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def on_requests(handler: Handler) -> Iterator[None]:
    """Have a handler take Ctrl-C and requests to end. Outside the main thread nothing changes.

    Ctrl-C is taken also where a shell that started this in the background has it ignored. The others are left
    to whoever has claimed them: ``nohup`` ignores SIGHUP, and a program of its own may handle SIGTERM.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        unclaimed = (signal.SIG_DFL, signal.default_int_handler)
        before = {
            number: signal.signal(number, handler)
            for number in REQUESTS
            if number == signal.SIGINT or signal.getsignal(number) in unclaimed
        }
    try:
        yield
    finally:
        for number, earlier in before.items():
            # None: it was not installed from Python, and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


def interruptible() -> AbstractContextManager[None]:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""
    return on_requests(signal.default_int_handler)


class Interruption(AbstractContextManager["Interruption"]):
    """Takes note of the first request to end; a second Ctrl-C stops at once. Outside the main thread it does
    nothing.

    A terminal that closes may send SIGHUP twice, and a scheduler SIGTERM after it: these never stop at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._stack = ExitStack()

    def __enter__(self) -> Interruption:
        self._stack.enter_context(on_requests(self._note))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def anywhere(self, device: torch.device) -> bool:
        """Whether any process of the run was asked to stop; all of them learn it at the same step."""
        return bool(world_sum(torch.tensor(float(self.requested), device=device)) > 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
