"""A display says what there is to say, and never ends the work that it shows."""

import errno
import io
import os
import sys
import time

import pytest

from torchcram.runs.progress import LiveProgress


class Gone(io.StringIO):
    """A stderr whose reader has gone; ``broken`` tells when."""

    broken = False

    def __init__(self, error: OSError):
        super().__init__()
        self.error = error

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.broken:
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.broken:
            raise self.error


def test_lines_are_printed_on_stderr_and_only_there(capsys):
    with LiveProgress(width=5, show=True) as progress:
        progress.say("one line [of] three [/red]")
    assert capsys.readouterr() == ("", "one line [of] three [/red]\n")


def test_silence_is_silence(capsys):
    with LiveProgress(width=5, show=False) as progress:
        progress.say("one line")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), BrokenPipeError(errno.EPIPE, "Broken pipe")]
)
def test_a_stderr_that_goes_away_ends_nothing(monkeypatch, error):
    """A closed terminal, or ``| head``: the thread that draws the live line must bear it, too."""
    stream = Gone(error)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with LiveProgress(width=5, show=True) as progress:
        assert not progress.progress.disable
        task = progress.progress.add_task("work", total=3)
        progress.say("before")
        stream.broken = True
        for _ in range(3):
            progress.progress.advance(task)
            progress.say("after")
            progress.progress.refresh()
            time.sleep(0.05)
    assert "before" in stream.getvalue()
    assert "after" not in stream.getvalue()


def test_a_pipe_without_a_reader_ends_nothing(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(os.dup(writer), "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with LiveProgress(width=5, show=True) as progress:
            progress.say("to nobody")
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    os.close(writer)


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError), LiveProgress(width=5, show=False):
        raise ZeroDivisionError
