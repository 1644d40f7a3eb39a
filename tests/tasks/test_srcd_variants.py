"""The variants of SRCD: each changes what it says and nothing else.

Statistical checks allow five standard errors.
"""

from itertools import pairwise

import pytest
import torch

from srcd_diary import assert_share, config, diaries, draw, tensors
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_oracle import needs_read


def test_without_override_nothing_is_overridden():
    batch = draw(config())
    assert not batch.slices["overridden"].any()
    assert torch.equal(needs_read(batch, config=config()), batch.slices["novel"])


def test_a_key_is_overridden_once_and_keeps_its_new_value():
    changes = 0
    for diary in diaries(draw(config(override=0.5), size=32), config()):
        own = diary.task.pattern_values()
        for key, values in diary.history.items():
            if key in diary.patterns:
                assert values[0] == own[diary.patterns[key]]
            turns = [after for before, after in pairwise(values) if before != after]
            assert len(turns) <= (key in diary.patterns)
            changes += len(turns)
    assert changes > 100


@pytest.mark.parametrize("override", [0.2, 0.5])
def test_the_stated_share_of_recurring_keys_is_overridden(override):
    """Many patterns, so that hardly one repeats by itself; a sequence with an odd number of recurring
    bindings cannot pair the last one."""
    settings = config(override=override, patterns=5000, length=256)
    changed = [
        len(set(values)) > 1
        for diary in diaries(draw(settings, size=100), settings)
        for key, values in diary.history.items()
        if key in diary.patterns
    ]
    assert sum(changed) / len(changed) == pytest.approx(override, rel=0.08)


def test_overriding_changes_values_only_at_and_after_the_second_binding():
    """The first binding of every key is the one that a batch without override has, too: overriding happens
    to a sequence, not to the patterns."""
    settings = config(override=1.0)
    batch = draw(settings, size=32)
    assert batch.slices["overridden"].any()
    assert batch.slices["recurring"].any()
    for diary in diaries(batch, settings):
        for step in diary.steps:
            if step and step["kind"] == "query" and step["pattern"] >= 0:
                assert step["first"] == diary.task.pattern_values()[step["pattern"]]


def test_every_other_value_replaces_an_overridden_one():
    settings = config(override=1.0, patterns=1, values=4, recurrence=1.0)
    own = SRCD(settings).pattern_values().item()
    batch = draw(settings, size=200)
    assert set(batch.targets["answer"][batch.slices["overridden"]].tolist()) == set(range(4)) - {own}


def test_drift_changes_every_pattern_at_its_step_and_nothing_before():
    drifting, still = config(drift_at=10), config()
    for name, tensor in tensors(draw(drifting, step=9)).items():
        assert torch.equal(tensor, tensors(draw(still, step=9))[name]), name
    task = SRCD(drifting)
    assert torch.equal(task.pattern_values(step=9), task.pattern_values(step=0))
    assert torch.equal(task.pattern_values(step=10), task.pattern_values(step=99))
    assert (task.pattern_values(step=9) != task.pattern_values(step=10)).all()
    batch = draw(drifting, step=10)
    recurring = batch.slices["recurring"]
    assert torch.equal(
        batch.targets["answer"][recurring], task.pattern_values(step=10)[batch.info["pattern"][recurring]]
    )
    assert not batch.slices["overridden"].any()


def test_drift_changes_every_pattern_in_each_context():
    task = SRCD(config(drift_at=1, contextual=True, patterns=200))
    for context in (0, 1):
        assert (
            task.pattern_values(step=0, context=context) != task.pattern_values(step=1, context=context)
        ).all()


def test_late_patterns_stay_away_until_they_are_introduced():
    settings = config(introduce_at=((10, 3), (20, 2)))
    task = SRCD(settings)
    assert task.introduced.tolist() == [0] * 7 + [10] * 3 + [20] * 2
    for step, patterns in {0: 7, 9: 7, 10: 10, 19: 10, 20: 12}.items():
        seen = draw(settings, size=40, step=step).info["pattern"]
        assert set(seen.unique().tolist()) == set(range(-1, patterns))


def test_a_redrawn_map_keeps_the_keys_and_draws_every_value_anew():
    task = SRCD(config(redrawn_map=True, recurrence=1.0, patterns=3))
    batch = draw(task.config, size=2000)
    answer, pattern, query = batch.targets["answer"], batch.info["pattern"], batch.slices["query"]
    assert set(pattern[query].tolist()) == {0, 1, 2}
    assert torch.equal(needs_read(batch, config=task.config), query)
    # One value a key within a sequence; over sequences all are equally likely, whatever the key.
    firsts = []
    for row in range(batch.size):
        for key in range(3):
            values = set(answer[row][query[row] & (pattern[row] == key)].tolist())
            assert len(values) <= 1
            firsts += [(key, value) for value in values]
    counts = torch.zeros(3, 16)
    for key, value in firsts:
        counts[key, value] += 1
    expected = counts.sum(1, keepdim=True) / 16
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


def test_not_redrawing_draws_nothing():
    plain, redrawn = (draw(config(redrawn_map=flag)) for flag in (False, True))
    torch.testing.assert_close(plain.gap, redrawn.gap)
    assert not torch.equal(plain.targets["answer"], redrawn.targets["answer"])


def test_contextual_values_depend_on_the_sense_of_rotation():
    settings = config(contextual=True, patterns=40)
    task, batch = SRCD(settings), draw(settings, size=64)
    maps = torch.stack([task.pattern_values(context=context) for context in (0, 1)])
    assert (maps[0] != maps[1]).float().mean() > 0.7
    clockwise = (batch.info["frequency"] < 0).long()
    assert_share(clockwise, 0.5)
    assert (batch.info["frequency"].abs() >= 0.5).all()
    rows, times = batch.slices["recurring"].nonzero(as_tuple=True)
    assert torch.equal(
        batch.targets["answer"][rows, times], maps[clockwise[rows], batch.info["pattern"][rows, times]]
    )
    plain = SRCD(config())
    assert torch.equal(plain.pattern_values(context=0), plain.pattern_values(context=1))


def test_the_context_can_be_seen_in_the_observations():
    """Without noise and with short gaps, successive observations turn to the left in one context and to
    the right in the other."""
    batch = draw(config(contextual=True, stationary_std=0.0, observation_std=0.0, gap_max=0.5), size=64)
    here, there = batch.inputs[:, :-1, :2], batch.inputs[:, 1:, :2]
    turn = here[..., 0] * there[..., 1] - here[..., 1] * there[..., 0]
    assert torch.equal(turn.sum(1).sign(), batch.info["frequency"].sign())


def test_typeless_leaves_out_the_flags_and_nothing_else():
    typed, bare = draw(config()), draw(config(typeless=True))
    assert torch.equal(torch.cat([typed.inputs[..., :2], typed.inputs[..., 4:]], -1), bare.inputs)
    assert torch.equal(typed.targets["answer"], bare.targets["answer"])
    assert SRCD(config(typeless=True)).input_size == SRCD(config()).input_size - 2


def test_unanswerable_queries_have_a_class_of_their_own():
    settings = config(unanswerable=0.25)
    batch = draw(settings, size=100)
    assert SRCD(settings).heads[0].size == 17
    assert_share(batch.slices["unanswerable"][batch.slices["query"]], 0.25)
    assert torch.equal(batch.targets["answer"] == 16, batch.slices["unanswerable"])
    assert (batch.info["distance"][batch.slices["unanswerable"]] == 0).all()
