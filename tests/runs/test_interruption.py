"""Ctrl-C and requests to end: noted, raised at the second Ctrl-C, and left to whoever has claimed them."""

import os
import signal
import threading

import pytest

from torchcram.runs.interruption import Interruption, interruptible

REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _as_in_a_terminal():
    """The tests may have been started where some of these are ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in REQUESTS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", REQUESTS)
def test_a_request_is_noted_and_the_handler_put_back(number):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert not interruption.requested
        send(number)
        assert interruption.requested
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once_after_whatever_came_first():
    for first in REQUESTS:
        with Interruption():
            send(first)
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGINT)


def test_a_closing_terminal_sends_more_than_one_and_stops_no_step():
    with Interruption() as interruption:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
            send(number)
        assert interruption.requested


@pytest.mark.parametrize("number", REQUESTS)
def test_between_steps_a_request_is_a_ctrl_c(number):
    with interruptible(), pytest.raises(KeyboardInterrupt):
        send(number)
    with interruptible():
        with Interruption() as interruption:
            send(number)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            send(number)


def test_what_somebody_has_claimed_is_left_to_them():
    """nohup has SIGHUP ignored; a program of its own saves at SIGTERM."""
    seen = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with interruptible(), Interruption() as interruption:
        send(signal.SIGHUP)
        send(signal.SIGTERM)
        assert not interruption.requested
    assert seen == [signal.SIGTERM]


def test_ctrl_c_is_taken_also_where_a_shell_in_the_background_has_it_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        send(signal.SIGINT)
        assert interruption.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_outside_the_main_thread_nothing_is_touched():
    before = [signal.getsignal(number) for number in REQUESTS]
    inside = []

    def work() -> None:
        with interruptible(), Interruption() as interruption:
            inside.append((interruption.requested, [signal.getsignal(number) for number in REQUESTS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(False, before)]
