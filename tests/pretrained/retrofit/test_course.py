"""The course of a distillation: what each step takes, reads and learns."""

import pytest
import torch

from torchcram.memory.phases import Phases
from torchcram.pretrained.retrofit.course import CLIMB, Course

COURSE = Course(steps=100, near=7, rate=2e-3, seed=3)


def test_steps_grow_then_fall_to_nothing():
    rates = [COURSE.rate_at(step) for step in range(100)]
    assert max(rates) == pytest.approx(2e-3)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-5


def test_held_out_text_is_asked_so_often_and_at_the_end():
    looks = [step for step in range(100) if COURSE.look_after(step)]
    assert len(looks) == COURSE.looks
    assert looks[-1] == 99
    assert sum(Course(steps=3, near=7).look_after(step) for step in range(3)) == 3


def test_a_resumed_step_takes_the_same_window():
    lessons = [torch.arange(10 * number, 10 * number + 300) for number in range(3)]
    windows = [COURSE.window(lessons, step) for step in range(32)]
    changed = [step for step in range(32) if not torch.equal(windows[step], lessons[step % 3])]
    # One step in four brings recalls, silent steps and others alike.
    assert len(changed) == 8
    assert {COURSE.silent(step) for step in changed} == {True, False}
    for step in changed:
        assert torch.equal(COURSE.window(lessons, step), windows[step])


@pytest.mark.parametrize(("divergence", "climbs"), [(0.05, True), (5.0, False)])
def test_the_price_climbs_while_the_divergence_holds(divergence, climbs):
    phases = Phases(COURSE.rules(cheapest=1e-6, dearest=1e-3, divergence=0.1))
    phases.begin_routing(-1)
    assert phases.price == 1e-6
    for step in range(round(CLIMB * 100)):
        phases.observe_reference(0.0, routed=divergence)
        phases.observe(step, loss=divergence, read_rate=0.5)
    assert phases.price == pytest.approx(1e-3 if climbs else 1e-6)


def test_prices_that_are_the_same_or_nothing_are_no_trouble():
    for cheapest, dearest in ((0.0, 0.0), (1e-3, 1e-3), (1e-2, 1e-3)):
        rules = COURSE.rules(cheapest=cheapest, dearest=dearest, divergence=0.1)
        assert rules.price_start == rules.price_most > 0


def test_the_first_step_reads_nothing():
    assert COURSE.silent(0)
    assert not COURSE.silent(1)
