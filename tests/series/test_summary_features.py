"""Summaries are what their names say, missing where nothing was observed, and those of steps look back
only."""

import numpy as np

from torchcram.series.summary_features import LOOK_BACK, SUMMARY, summarise, summarise_steps
from torchcram.series.task import Series


def test_a_summary_is_what_its_names_say():
    values = np.array([[1.0, np.nan], [3.0, 5.0], [8.0, np.nan]])
    found = summarise(Series(time=np.array([0.0, 2.0, 7.0]), values=values))
    one, other = found[:-1].reshape(len(SUMMARY), 2).T
    slope = np.polyfit([0.0, 2.0, 7.0], [1.0, 3.0, 8.0], 1)[0]
    np.testing.assert_allclose(one, [1, 8, 1, 8, 4, np.std([1, 3, 8]), 3, 7, slope])
    np.testing.assert_allclose(other, [5, 5, 5, 5, 5, 0, 1, 2, np.nan])
    assert found[-1] == 3


def test_what_was_never_observed_is_missing_but_counted():
    found = summarise(Series(time=np.empty(0), values=np.empty((0, 2))))
    blocks = found[:-1].reshape(len(SUMMARY), 2)
    assert (blocks[SUMMARY.index("count")] == 0).all()
    assert np.isnan(np.delete(blocks, SUMMARY.index("count"), 0)).all()
    assert found[-1] == 0


def test_steps_are_summarised_by_their_past():
    generator = np.random.default_rng(0)
    inputs, gap = generator.normal(size=(2, 40, 3)), generator.random((2, 40))
    rows = summarise_steps(inputs, gap).reshape(2, 40, -1)
    np.testing.assert_array_equal(rows[..., :4], np.concatenate([inputs, gap[..., None]], -1))
    for step in (0, 5, 39):
        for place, steps in enumerate(LOOK_BACK):
            past = inputs[1, max(0, step + 1 - steps) : step + 1]
            expected = np.concatenate([past.mean(0), past.std(0), past.min(0), past.max(0)])
            np.testing.assert_allclose(rows[1, step, 4 + 12 * place : 16 + 12 * place], expected)
    changed = inputs.copy()
    changed[:, 20:] += 1
    np.testing.assert_array_equal(summarise_steps(changed, gap).reshape(2, 40, -1)[:, :20], rows[:, :20])
