"""Exposures counted by hand."""

import pytest
import torch

from torchcram.models.sequence import ModelOutput
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.training.exposures import EDGES, ExposureCounter
from torchcram.types import Batch, BlockOutput, MemoryState, RoutingDecision


def counter_of(patterns: int) -> ExposureCounter:
    return ExposureCounter(SRCD(SRCDConfig(patterns=patterns, recurrence=0.7 if patterns else 0.0)))


def asked(patterns: list[int], read: list[bool]) -> tuple[Batch, ModelOutput]:
    """One sequence of queries for the given patterns (-1: no recurring one), of which some read."""
    time = len(patterns)
    pattern, route = torch.tensor([patterns]), torch.tensor([[2 if chosen else 1 for chosen in read]])
    batch = Batch(
        inputs=torch.zeros(1, time, 1),
        gap=torch.zeros(1, time),
        slices={"recurring": pattern >= 0},
        info={"pattern": pattern},
    )
    blank = torch.zeros(1, time)
    decision = RoutingDecision(
        route=route,
        probabilities=torch.zeros(1, time, 3),
        familiarity=blank,
        explored=blank.bool(),
        weight=blank,
        asked=blank.bool(),
    )
    block = BlockOutput(hidden_states=torch.zeros(1, time, 4), state=MemoryState(), decision=decision)
    return batch, ModelOutput(outputs={}, blocks=(block,))


def test_queries_fall_into_the_bin_of_earlier_exposures():
    counter = counter_of(3)
    counter.count(*asked([0, 0, 1, -1], [True, True, True, True]), routed=True)
    counter.count(*asked([0, 1, 2, 2], [False, True, True, False]), routed=True)
    # First step: all three with none before. Second: pattern 0 with two, pattern 1 with one, pattern 2
    # (twice) with none.
    assert counter.exposures.tolist() == [3, 2, 2]
    assert [bins[:3] for bins in counter.record()["queries"]] == [[2, 0, 1], [1, 1, 0], [2, 0, 0]]
    assert [bins[:3] for bins in counter.record()["reads"]] == [[2, 0, 0], [1, 1, 0], [1, 0, 0]]


def test_before_routing_exposures_count_but_reads_do_not():
    counter = counter_of(2)
    counter.count(*asked([0, 0, 0], [True] * 3), routed=False)
    assert counter.exposures.tolist() == [3, 0]
    assert sum(map(sum, counter.record()["queries"])) == 0
    counter.count(*asked([0], [False]), routed=True)
    assert counter.record()["queries"][0][EDGES.index(2)] == 1


def test_the_edges_close_the_last_bin():
    record = counter_of(1).record()
    assert len(record["edges"]) == len(record["queries"][0]) + 1 == len(record["reads"][0]) + 1
    assert record["edges"] == sorted(record["edges"])


def test_only_what_can_be_skipped_is_an_exposure():
    counter = counter_of(2)
    batch, output = asked([0, 0, 1], [True] * 3)
    batch.slices["recurring"][0, 0] = False
    counter.count(batch, output, routed=True)
    assert counter.exposures.tolist() == [1, 1]


@pytest.mark.parametrize("patterns", [0, 2])
def test_tasks_without_patterns_count_nothing(patterns):
    counter = counter_of(patterns)
    batch, output = asked([0], [True])
    batch.info.clear() if patterns else None
    counter.count(batch, output, routed=True)
    assert counter.exposures.tolist() == [0] * patterns


def test_the_state_goes_along():
    one, other = counter_of(3), counter_of(3)
    one.count(*asked([0, 2, 2], [True, False, True]), routed=True)
    other.load_state_dict(one.state_dict())
    for counter in (one, other):
        counter.count(*asked([2, 1], [True, False]), routed=True)
    assert one.state_dict() == other.state_dict()
    assert one.record() == other.record()
