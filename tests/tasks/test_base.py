"""What a task may bring, and what is said where it does not fit."""

from types import SimpleNamespace

import pytest
import torch

from tiny_runs import Echo, Recall, Sums
from torchcram.tasks.base import (
    TaskConfig,
    as_task,
    calibrated_head,
    check_members,
    floors_of,
    generator_of,
    skippable_steps,
)
from torchcram.types import Batch


def drawn(task, size: int = 3) -> Batch:
    return task.batch(size, generator=generator_of(0, 0))


def test_what_a_task_brings_is_found():
    task = as_task(Recall())
    batch = drawn(task)
    assert calibrated_head(task) == task.heads[0]
    assert floors_of(task, batch).needs_read is batch.slices["new"]
    assert torch.equal(skippable_steps(task, batch), batch.slices["known"])
    check_members(task, batch)


@pytest.mark.parametrize("task", [Echo(), Sums()])
def test_a_task_without_these_members_does_without(task):
    batch = drawn(as_task(task))
    assert calibrated_head(task) is None
    assert floors_of(task, batch) is None
    assert torch.equal(skippable_steps(task, batch), batch.real)


def test_padding_cannot_be_skipped():
    class Skipping(Sums):
        skippable = "all"

        def batch(self, size, *, generator, step=0, length=None):
            batch = super().batch(size, generator=generator)
            batch.slices["all"] = torch.ones_like(batch.mask)
            return batch

    batch = drawn(Skipping())
    assert not batch.mask.all()
    assert torch.equal(skippable_steps(Skipping(), batch), batch.mask)


def changed(**members):
    return type("Changed", (Recall,), members)()


@pytest.mark.parametrize("head", ["sayed", "seen"])
def test_a_calibrated_head_must_be_a_class_head_of_the_task(head):
    with pytest.raises(ValueError, match=rf"unknown calibrated_head of Changed '{head}': .*'said'|said"):
        as_task(changed(calibrated_head=head))


def test_a_skippable_slice_must_be_in_the_batch():
    task = changed(skippable="knwon")
    with pytest.raises(ValueError, match="unknown skippable slice of Changed 'knwon': did you mean 'known'"):
        check_members(task, drawn(task))


@pytest.mark.parametrize(
    ("needs_read", "said"),
    [(torch.ones(3, 40), r"torch.float32 \[3, 40\]"), (torch.ones(3, 1).bool(), r"torch.bool \[3, 1\]")],
)
def test_an_oracle_must_fit_the_batch(needs_read, said):
    task = changed(oracle=lambda self, batch: SimpleNamespace(needs_read=needs_read, figures={}))
    with pytest.raises(ValueError, match=rf"oracle of Changed returns needs_read as {said}: it must be"):
        check_members(task, drawn(task))


def test_what_is_no_task_is_named():
    with pytest.raises(ValueError, match="dict is no task: it lacks input_size, heads, batch"):
        as_task({})


def test_a_configuration_takes_any_length_and_changes_at_no_step_unless_it_says_so():
    config = TaskConfig(kind="any", length=5)
    config.check_length(3)
    assert config.before(0) == config
