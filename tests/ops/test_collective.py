"""Sums over processes: the identity in one, and in two really the sum over both."""

from pathlib import Path

import pytest
import torch

import fresh_process
from torchcram.ops.collective import step_mean, world_concat, world_mean, world_sum

TWO = """
import os, sys
import torch, torch.distributed as dist
from torchcram.ops.collective import world_concat, world_mean, world_sum
other = os.fork()
rank = 1 if other else 0
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
assert world_sum(torch.tensor([1.0 + rank, 10.0])).tolist() == [3.0, 20.0]
rows = torch.arange(3.0 if rank == 0 else 1.0)[:, None] + 10 * rank
assert world_concat(rows, 2).flatten().tolist() == [0.0, 1.0, 10.0]
assert world_concat(rows[:0] if rank == 0 else rows, 2).flatten().tolist() == [10.0]
weight = torch.tensor(2.0, requires_grad=True)
total, count = (weight * 3, 1.0) if rank == 0 else (weight * 5, 3.0)
mean = world_mean(total, torch.tensor(count))
mean.backward()
average = world_sum(torch.stack([mean.detach(), weight.grad])) / 2
assert average.tolist() == [(6 + 10) / 4, (3 + 5) / 4], average
dist.destroy_process_group()
if other:
    _, status = os.waitpid(other, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_in_one_process_a_sum_is_a_copy_without_gradient():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    total = world_sum(values)
    assert total.tolist() == [1.0, 2.0]
    assert not total.requires_grad
    assert total.data_ptr() != values.data_ptr()


@pytest.mark.parametrize(("most", "kept"), [(0, 0), (2, 2), (9, 3)])
def test_in_one_process_the_first_rows_are_kept(most, kept):
    rows = torch.randn(3, 2)
    assert torch.equal(world_concat(rows, most), rows[:kept])


def test_in_one_process_a_mean_is_total_over_count():
    total = torch.tensor(6.0, requires_grad=True)
    mean = world_mean(total, torch.tensor(4.0))
    mean.backward()
    assert (mean.item(), total.grad.item()) == (1.5, 0.25)


def test_the_mean_of_nothing_is_zero():
    assert world_mean(torch.tensor(0.0), torch.tensor(0.0)).item() == 0.0


@pytest.mark.slow
def test_in_two_processes_both_count(tmp_path: Path):
    """The average over processes of a mean, and of its gradient, is that over all rows: 16 over 4,
    although one process has three quarters of them."""
    done = fresh_process.run(TWO, str(tmp_path / "meet"))
    assert done.returncode == 0, done.stderr


def test_the_mean_over_steps_leaves_padding_out():
    values, mask = torch.tensor([[1.0, 2.0], [6.0, 100.0]]), torch.tensor([[True, True], [True, False]])
    assert step_mean(values, None) == pytest.approx(109 / 4)
    assert step_mean(values, mask) == pytest.approx(3.0)
    assert step_mean(values, torch.zeros_like(mask)) == 0
