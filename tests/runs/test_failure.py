"""What the user can mend is one line; our own mistakes keep their tracebacks."""

import re

import numpy as np
import pytest
import torch

from torchcram.runs.failure import ending_in_one_line


def raising(error: BaseException):
    def work() -> None:
        raise error

    return work


def too_much_in_torch() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def too_much_in_numpy() -> None:
    np.empty(2**60, dtype=np.uint8)


@pytest.mark.parametrize("error", [ValueError, FloatingPointError, ImportError, OSError])
def test_what_the_user_can_mend_is_one_line(capsys, error):
    with pytest.raises(SystemExit) as end:
        ending_in_one_line(raising(error("the first\nthe second [brackets]")))
    assert end.value.code == 2
    assert capsys.readouterr() == ("", "error: the first; the second [brackets]\n")


@pytest.mark.parametrize(
    ("work", "amount"),
    [
        (too_much_in_torch, r"for \d+ bytes more"),
        (too_much_in_numpy, r"for 1.00 EiB more"),
        (raising(torch.OutOfMemoryError("CUDA: Tried to allocate 20.00 GiB.")), "for 20.00 GiB"),
        (raising(MemoryError()), "not enough memory: "),
    ],
)
def test_too_little_memory_is_one_line_that_says_what_to_do(capsys, work, amount):
    with pytest.raises(SystemExit) as end:
        ending_in_one_line(work)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: not enough memory")
    assert "take smaller batches (training.tokens_per_step), shorter sequences (--context), or" in line
    assert re.search(amount, line)


@pytest.mark.parametrize("error", [RuntimeError, KeyError, AssertionError, ZeroDivisionError])
def test_our_own_mistakes_keep_their_tracebacks(error):
    with pytest.raises(error, match="ours"):
        ending_in_one_line(raising(error("ours")))


def test_an_interruption_is_130(capsys):
    with pytest.raises(SystemExit) as end:
        ending_in_one_line(raising(KeyboardInterrupt()))
    assert end.value.code == 130
    assert capsys.readouterr() == ("", "")


def test_success_says_nothing(capsys):
    ending_in_one_line(lambda: None)
    assert capsys.readouterr() == ("", "")


def test_errors_are_red_on_terminals_unless_no_colour_is_wanted(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with pytest.raises(SystemExit):
        ending_in_one_line(raising(ValueError("wrong")))
    assert capsys.readouterr().err == "\x1b[31merror: wrong\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit):
        ending_in_one_line(raising(ValueError("wrong")))
    assert capsys.readouterr().err == "error: wrong\n"
