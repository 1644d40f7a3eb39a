"""What everything that takes long shows on stderr: a live line on a terminal, and printed lines everywhere.

A display never ends the work that it shows: where stderr is gone (a closed terminal, ``| head``), it shows
nothing more.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, TypeVar, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Not typing.Self: the checker that enforces shapes in the tests sees one method at a time.
LiveT = TypeVar("LiveT", bound="LiveProgress")


class LiveProgress:
    """The bar, the times and the printed lines; subclasses say what a line is about.

    Args:
        width: characters of the description before the bar.
        further: columns behind the times.
        show: False for silence.
        speed_period: seconds over which the speed is measured.
    """

    def __init__(
        self, *, width: int, further: tuple[ProgressColumn, ...] = (), show: bool, speed_period: float = 30.0
    ):
        self.console = Console(file=cast(IO[str], UnbreakableStream(sys.stderr)), quiet=not show)
        self.progress = Progress(
            TextColumn(f"{{task.description:<{width}}}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            *further,
            console=self.console,
            disable=not (show and self.console.is_terminal),
            transient=True,
            speed_estimate_period=speed_period,
        )

    def __enter__(self: LiveT) -> LiveT:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def say(self, text: str | Text) -> None:
        """Print a line as it is: brackets are no markup."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class UnbreakableStream:
    """A text stream on which writing never fails: what cannot be written is lost.

    Args:
        stream: where it is written.
    """

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError):
            self._stream.flush()
