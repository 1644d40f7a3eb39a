"""Each form of a problem holds the same stays, or windows; what is judged is the same for all, and comes
once."""

import numpy as np
import torch

from torchcram.series.comparison.problems import JUDGING, LEARNING
from torchcram.series.side_heads import Lessons


def test_both_forms_of_the_stays_hold_the_same_and_only_training_is_drawn_otherwise(physionet):
    stacked, whole = (
        physionet.tasks(1, encoder=encoder, hide=0.2, lessons=Lessons()) for encoder in (False, True)
    )
    assert (stacked["train"].input_size, whole["train"].input_size) == (37 * 7, 37 * 10)
    assert (stacked["train"].flags, whole["train"].flags) == (False, True)
    for part, task in stacked.items():
        assert task.hide == (0.2 if part == "train" else 0.0)
        for one, other in zip(task.series, whole[part].series, strict=True):
            assert torch.equal(one.gap, other.gap)
        assert torch.equal(task.targets["death"], whole[part].targets["death"])


def test_every_stay_is_judged_once(physionet):
    task = physionet.tasks(0, encoder=False, hide=0.0, lessons=Lessons())["test"]
    batches = physionet.batches(task)
    assert sum(batch.size for batch in batches) == len(task.series)
    assert sum(int(batch.targets["death"].sum()) for batch in batches) == int(task.targets["death"].sum())


def test_summaries_belong_to_the_stays_of_their_part(physionet):
    tables = physionet.tables(2, ["validation", "test"])
    assert set(tables) == {"validation", "test"}
    rows = physionet.data.split(2).test
    np.testing.assert_array_equal(tables["test"].truth, physionet.data.death[rows])
    np.testing.assert_array_equal(
        tables["test"].features[:, -1], [len(physionet.data.series()[row].time) for row in rows]
    )


def test_windows_to_judge_are_the_same_each_time_and_score_each_row_at_most_once(activity):
    task = activity.tasks(0, encoder=False, hide=0.0, lessons=Lessons())["validation"]
    first, again = (activity.batches(task) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.inputs, other.inputs)
    scored = torch.cat([batch.info["row"][batch.targets["activity"] >= 0] for batch in first])
    assert len(scored.unique()) == len(scored) > 0


def test_trees_are_judged_on_the_same_steps_as_models_and_learn_from_another_thinning(activity):
    task, tables = (
        activity.tasks(0, encoder=False, hide=0.0, lessons=Lessons()),
        activity.tables(0, ["train", "test"]),
    )
    truth = torch.cat([batch.targets["activity"].ravel() for batch in activity.batches(task["test"])])
    np.testing.assert_array_equal(tables["test"].truth, truth[truth >= 0])
    assert (tables["train"].truth >= 0).all()
    assert JUDGING != LEARNING
