import time

from torchcram.runs.clock import Clock


def test_setting_the_wall_clock_back_takes_no_seconds_away(monkeypatch):
    clock = Clock()
    wall = time.time()
    monkeypatch.setattr(time, "time", lambda: wall - 3600)
    assert 0 <= clock.seconds() < 60


def test_seconds_of_earlier_processes_count(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock()
    clock.seconds_before = 7.0
    now[0] += 2.5
    assert clock.seconds() == 9.5
