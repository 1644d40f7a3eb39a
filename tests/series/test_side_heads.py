"""Side heads: their targets come from what is known before hiding, never from padding, and both encodings
of a series give the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from torchcram.models.sequence import SequenceModel
from torchcram.series.history import encode_carried, with_running_statistics
from torchcram.series.side_heads import Lessons, forecast_targets, replicate_targets, restore_targets
from torchcram.series.task import EncodedSeries, Series, SeriesStatistics, SeriesTask
from torchcram.types import Head

HEAD = Head(name="kind", kind="classification", size=2, per="sequence")
NAN = float("nan")


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(99.0), other.nan_to_num(99.0))


def stays() -> list[Series]:
    generator = np.random.default_rng(0)
    values = [
        np.where(generator.random((steps, 3)) < 0.5, generator.normal(size=(steps, 3)), np.nan)
        for steps in (1, 4, 7)
    ]
    return [
        Series.of_vectors(
            np.arange(len(one), dtype=float), np.where(np.isnan(one).all(1, keepdims=True), 1.0, one)
        )
        for one in values
    ]


def task(*, running: bool, carried: bool) -> SeriesTask:
    series = [with_running_statistics(one) for one in stays()] if running else stays()
    statistics = SeriesStatistics.fit(series)
    encoded = [
        encode_carried(statistics, one, variables=3) if carried else statistics.encode(one) for one in series
    ]
    return SeriesTask(encoded, {"kind": torch.tensor([0, 1, 0])}, (HEAD,), variables=3, flags=not carried)


def test_a_forecast_is_the_next_step_and_the_last_has_none():
    observed = torch.tensor([[[1.0, NAN], [2.0, 5.0], [NAN, 6.0]]])
    assert same(forecast_targets(observed), torch.tensor([[[2.0, 5.0], [NAN, 6.0], [NAN, NAN]]]))


def test_what_is_restored_was_observed_and_is_hidden():
    observed, kept = torch.tensor([[[1.0, NAN, 3.0, NAN]]]), torch.tensor([[[True, True, False, False]]])
    assert same(restore_targets(observed, kept), torch.tensor([[[NAN, NAN, 3.0, NAN]]]))


@pytest.mark.parametrize(("running", "carried"), [(False, False), (True, False), (False, True), (True, True)])
def test_every_encoding_gives_the_targets_of_the_series_themselves(running, carried):
    drawn = task(running=running, carried=carried).drawn(lessons=Lessons(forecast=2.0))
    assert [(head.name, head.weight, head.size) for head in drawn.heads] == [
        ("kind", 1.0, 2),
        ("forecast", 2.0, 3),
    ]
    batch = drawn.batch(40, generator=torch.Generator().manual_seed(0))
    statistics = SeriesStatistics.fit(stays())
    plain = {len(one.time): statistics.encode(one) for one in stays()}
    for target, mask in zip(batch.targets["forecast"], batch.mask, strict=True):
        values, seen = plain[int(mask.sum())].inputs.chunk(2, -1)
        expected = torch.full_like(target, NAN)
        expected[: len(values) - 1] = values.masked_fill(seen == 0, NAN)[1:]
        assert same(target, expected)


@pytest.mark.parametrize("carried", [False, True])
def test_hiding_changes_inputs_not_forecasts_and_only_what_it_took_is_restored(carried):
    plain = task(running=True, carried=carried)
    drawn = plain.drawn(hide=0.5, lessons=Lessons(forecast=1.0, restore=1.0))
    batch = drawn.batch(30, generator=torch.Generator().manual_seed(1))
    whole = plain.drawn(lessons=Lessons(forecast=1.0)).batch(30, generator=torch.Generator().manual_seed(1))
    assert same(batch.targets["forecast"], whole.targets["forecast"])
    hidden = (batch.inputs != whole.inputs)[..., :3]
    restored = ~batch.targets["restore"].isnan()
    assert restored.any()
    assert torch.equal(batch.targets["restore"][restored], whole.inputs[..., :3][restored])
    assert not batch.inputs[..., :3][restored].any()
    # A value of exactly zero could not tell; there is none among random ones.
    assert not (hidden & batch.inputs[..., :3].bool()).any()


def test_what_is_drawn_otherwise_has_the_heads_that_it_asks_for_and_no_more():
    drawn = task(running=False, carried=False).drawn(lessons=Lessons(forecast=1.0))
    assert drawn.drawn().heads == (HEAD,)
    assert set(drawn.drawn().rows([0]).targets) == {"kind"}


def test_held_out_series_are_forecast_too_and_nothing_of_them_is_hidden():
    drawn = task(running=False, carried=True).drawn(hide=0.9, lessons=Lessons(forecast=1.0, restore=1.0))
    batch, plain = drawn.rows([2]), task(running=False, carried=True).rows([2])
    assert torch.equal(batch.inputs, plain.inputs)
    assert batch.targets["restore"].isnan().all()
    assert not batch.targets["forecast"].isnan().all()


def test_nothing_hidden_is_nothing_to_restore():
    with pytest.raises(ValueError, match="hide > 0"):
        task(running=False, carried=False).drawn(lessons=Lessons(restore=1.0)).batch(
            2, generator=torch.Generator()
        )


def test_values_alone_are_all_observed_nowhere_without_flags():
    one = EncodedSeries(inputs=torch.tensor([[1.0, 1.0], [2.0, 0.0]]), gap=torch.ones(2))
    target = (
        SeriesTask([one], {}, ())
        .drawn(lessons=Lessons(forecast=1.0))
        .batch(1, generator=torch.Generator().manual_seed(0))
        .targets["forecast"]
    )
    assert same(target, torch.tensor([[[NAN], [NAN]]]))


def test_a_replicated_target_is_that_of_its_own_sequence_at_every_step():
    drawn = task(running=False, carried=True).drawn(lessons=Lessons(replicate=0.5))
    again = drawn.heads[1]
    assert (again.name, again.per, again.kind, again.size, again.weight) == (
        "kind_at_each_step",
        "step",
        "classification",
        2,
        0.5,
    )
    batch = drawn.batch(20, generator=torch.Generator().manual_seed(0))
    assert batch.targets["kind"].unique().tolist() == [0, 1]
    assert (batch.targets["kind_at_each_step"] == batch.targets["kind"][:, None]).all()
    assert batch.targets["kind_at_each_step"].shape == batch.gap.shape


def test_numbers_are_replicated_with_all_their_columns():
    assert torch.equal(
        replicate_targets(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 3)[1], torch.tensor([[3.0, 4.0]] * 3)
    )


def test_a_model_learns_all_lessons_of_real_steps_alone():
    """Longer padding changes no loss."""
    drawn = task(running=True, carried=True).drawn(lessons=Lessons(forecast=1.0, replicate=1.0))
    torch.manual_seed(0)
    model = SequenceModel(
        drawn.heads, input_size=drawn.input_size, d_model=8, layers=1, mixer="ssm", options={"state_size": 4}
    )
    alone, beside = drawn.rows([1]), drawn.rows([1, 2])
    beside = replace(beside, targets={name: target.clone() for name, target in beside.targets.items()})
    for target in beside.targets.values():
        target[1] = -100 if target.dtype == torch.int64 else NAN
    losses = [model.task_losses(model(batch).outputs, batch) for batch in (alone, beside)]
    assert set(losses[0]) == {"kind", "forecast", "kind_at_each_step"}
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss)
