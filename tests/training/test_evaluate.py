"""An evaluation against answers that are known: perfect models, models that know nothing, sums made by
hand."""

import math
from itertools import combinations

import pytest
import torch

from tiny_runs import Sums
from torchcram.models.sequence import ModelOutput, SequenceModel
from torchcram.tasks.base import generator_of
from torchcram.tasks.srcd import SRCD
from torchcram.training.build import build_model
from torchcram.training.distributed import local_batch, make_accelerator
from torchcram.training.evaluate import (
    Tally,
    enough_scored,
    evaluate,
    evaluation_batch,
    route_map,
)
from torchcram.types import Batch, Head, RoutingControl


@pytest.fixture
def task(tiny) -> SRCD:
    return SRCD(tiny().task)


@pytest.fixture
def model(tiny, task) -> SequenceModel:
    return build_model(tiny(), task)


def judged(model, task, **changes):
    options = {
        "control": RoutingControl(reads="all"),
        "seed": 1,
        "step": 0,
        "enough": enough_scored(50),
        "sequences": 8,
        **changes,
    }
    return evaluate(model, task, **options)


class Oracle(SequenceModel):
    """Gives the targets as answers, but for the class of every n-th sequence."""

    wrong = 0

    def forward(self, batch, states=None, *, control=None, noise=None):
        output = super().forward(batch, states, control=control, noise=noise)
        answer = torch.nn.functional.one_hot(batch.targets["answer"].clamp_min(0), 4).float()
        answer[: self.wrong] = answer[: self.wrong].roll(1, -1)
        return ModelOutput(
            outputs={"answer": answer, "next_observation": batch.targets["next_observation"] + 0.5},
            blocks=output.blocks,
        )


@pytest.mark.parametrize(("wrong", "accuracy"), [(0, 1.0), (8, 0.0), (2, 0.75)])
def test_scores_are_those_of_the_answers(task, wrong, accuracy):
    oracle = Oracle(task.heads, input_size=task.input_size, d_model=16, layers=1)
    oracle.wrong = wrong
    record = judged(oracle, task)
    assert record["accuracy"]["query"] == pytest.approx(accuracy)
    assert record["accuracy"]["all"] == record["accuracy"]["query"]
    assert record["dynamics_mse"] == pytest.approx(0.25)
    assert set(record["accuracy"]) == {"all", "query", "recurring", "novel"}


@pytest.mark.parametrize("reads", ["all", "none"])
def test_rates_and_shares_of_models_that_read_everything_or_nothing(model, task, reads):
    record = judged(model, task, control=RoutingControl(reads=reads))
    expected = 1.0 if reads == "all" else 0.0
    assert record["any_layer_read_rate"] == record["attention_share"] == expected
    assert record["read_rate_by_layer"] == [expected] * 2
    assert record["routes_by_slice"]["query"][2] == expected
    assert all(sum(shares) == pytest.approx(1.0) for shares in record["routes_by_slice"].values())


def test_floors_and_oracles_come_with_srcd(model, task):
    record = judged(model, task, enough=enough_scored(400))
    assert record["any_layer_floor"] == pytest.approx(0.3 * 2 / 40, rel=0.25)
    assert 0 < record["attention_share_floor"] < record["any_layer_floor"]
    assert 0 < record["kalman_mse"] < record["dynamics_mse"]


def test_enough_is_enough(model, task):
    record = judged(model, task)
    # Two queries a sequence, eight sequences a batch.
    assert (record["evaluated_queries"], record["sequences"]) == (64, 32)


def test_hardly_scored_sequences_end_too(tiny):
    model = build_model(tiny(), task := Sums())
    record = judged(model, task, enough=enough_scored(20))
    assert record["sequences"] == record["evaluated_queries"] == 24

    class Unscored(Sums):
        def batch(self, size, *, generator, step=0, length=None):
            batch = super().batch(size, generator=generator)
            batch.targets["positive"][:] = -100
            return batch

    record = judged(model, Unscored(), enough=enough_scored(20))
    assert (record["sequences"], record["evaluated_queries"]) == (24, 0)
    assert math.isnan(record["accuracy"]["all"])


def test_evaluating_changes_nothing_and_repeats(model, task):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert judged(model, task) == judged(model, task)
    assert judged(model, task) != judged(model, task, seed=2)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_padding_counts_nowhere(tiny):
    task = Sums()
    model = build_model(tiny(), task).eval()
    batch = task.batch(6, generator=torch.Generator().manual_seed(0))
    tally = Tally(model)
    with torch.no_grad():
        tally.add(model(batch, control=RoutingControl(reads="all")), batch)
    assert tally.sums["tokens"] == tally.sums["any"] == batch.mask.sum()
    lengths = batch.mask.sum(1)
    assert tally.sums["dense"] == 2 * (lengths * (lengths + 1) / 2).sum()


def test_two_class_heads_keep_their_scores_apart(tiny):
    class Two(Sums):
        heads = (*Sums.heads, Head(name="first", kind="classification", size=2, per="sequence"))

        def batch(self, size, *, generator, step=0, length=None):
            batch = super().batch(size, generator=generator)
            batch.targets["first"] = (batch.inputs[:, 0, 0] > 0).long()
            return batch

    assert set(judged(build_model(tiny(), Two()), Two())["accuracy"]) == {"positive.all", "first.all"}


def test_targets_that_do_not_fit_are_named(task):
    class Narrow(SRCD):
        heads = (Head(name="answer", kind="classification", size=3),)

    with pytest.raises(ValueError, match=r"target 'answer' .* is 3: classes go from 0 to 2"):
        judged(SequenceModel(Narrow.heads, input_size=task.input_size, d_model=16), task)


@pytest.mark.parametrize("seed", [0, 1, 1073, 1074, 4294, 10_007, 1_099_508, 2**31, 2**32 - 1])
def test_no_evaluation_draws_what_training_draws(seed):
    """The key of a generator is cut to 32 bits: training's keys lie below 2^30 whatever the seed, those of
    fresh sequences above."""
    keys = {
        fresh: {
            generator_of(seed, index, fresh=fresh).initial_seed() for index in (0, 1, 5000, 2**30, 2**30 + 7)
        }
        for fresh in (False, True)
    }
    assert all(0 <= key < 2**30 for key in keys[False])
    assert all(2**30 <= key < 2**32 for key in keys[True])


def test_evaluation_sequences_differ_from_training_sequences(tiny, task):
    training = [
        local_batch(tiny(seed=seed), task, make_accelerator(), 0, exploring=False)[0].inputs
        for seed in (0, 1)
    ]
    evaluation = [evaluation_batch(task, sequences=8, seed=seed, index=0, step=0).inputs for seed in (0, 1)]
    assert not any(torch.equal(one, other) for one, other in combinations([*training, *evaluation], 2))


def test_the_route_map_shows_one_sequence(model, task):
    batch = evaluation_batch(task, sequences=3, seed=1, index=0, step=0)
    found = route_map(model, batch, control=RoutingControl(reads="all"))
    assert found["routes"] == [[2] * 40] * 2
    assert found["query"] == batch.slices["query"][0].tolist()
    assert found["time"] == pytest.approx(batch.gap[0].cumsum(0).tolist(), rel=1e-5)
    plain = Batch(inputs=batch.inputs, gap=batch.gap)
    assert route_map(model, plain, control=RoutingControl())["query"] == [False] * 40
