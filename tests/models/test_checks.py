"""Bad batches are refused with the culprit's name, good ones are let through."""

from dataclasses import replace

import pytest
import torch

from torchcram.models.checks import check_batch, check_targets
from torchcram.models.sequence import SequenceModel
from torchcram.types import Batch, Head

HEADS = (
    Head(name="kind", kind="classification", size=3),
    Head(name="value", kind="regression", size=2),
    Head(name="whole", kind="classification", size=2, per="sequence"),
)


def batch(**changes: object) -> Batch:
    """Two sequences of five steps, the second one padded from step 3."""
    good = Batch(
        inputs=torch.ones(2, 5, 4),
        gap=torch.ones(2, 5),
        horizon=torch.zeros(2, 5),
        mask=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
        targets={
            "kind": torch.tensor([[0, 1, 2, -100, 0]] * 2),
            "value": torch.full((2, 5, 2), float("nan")),
            "whole": torch.tensor([1, -100]),
        },
    )
    return replace(good, **changes)


def at(values: torch.Tensor, place: tuple[int, ...], value: float) -> torch.Tensor:
    values = values.clone()
    values[place] = value
    return values


def check(bad: Batch, *, continued: bool = False) -> None:
    check_batch(bad, input_size=4, vocabulary=None, continued=continued)


def test_a_good_batch_passes():
    check(batch())
    check(batch(mask=None, horizon=None))
    check_targets(batch(), HEADS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"gap": at(torch.ones(2, 5), (1, 2), -0.25)},
            r"gap \[1, 2\] is -0.25: times must be finite and at least 0: sort the steps by time",
        ),
        ({"gap": at(torch.ones(2, 5), (0, 4), float("nan"))}, r"gap \[0, 4\] is nan"),
        ({"gap": at(torch.ones(2, 5), (0, 4), float("inf"))}, r"gap \[0, 4\] is inf"),
        ({"horizon": at(torch.ones(2, 5), (0, 1), -1.0)}, r"horizon \[0, 1\] is -1.0"),
        (
            {"inputs": at(torch.ones(2, 5, 4), (1, 4, 3), float("nan"))},
            r"inputs \[1, 4, 3\] is nan: inputs must be finite, on padding, too: put 0",
        ),
        ({"inputs": at(torch.ones(2, 5, 4), (0, 0, 0), float("-inf"))}, r"inputs \[0, 0, 0\] is -inf"),
        (
            {"inputs": torch.ones(2, 5, 3)},
            r"inputs are torch.float32 of shape \(2, 5, 3\): this model takes 4 real numbers a step",
        ),
        (
            {"inputs": torch.ones(2, 5, dtype=torch.long)},
            r"inputs are torch.int64 of shape \(2, 5\): this model takes 4 real numbers",
        ),
        ({"mask": torch.tensor([[True] * 5, [False] * 5])}, r"mask \[1, 0\] is False: the sequence is empty"),
        (
            {"mask": torch.tensor([[True] * 5, [True, False, True, True, False]])},
            r"mask \[1, 2\] is True: the step before is padding",
        ),
    ],
)
def test_the_culprit_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        check(batch(**changes))


@pytest.mark.parametrize(("size", "steps"), [(2, 0), (0, 5)])
def test_an_empty_batch_is_named(size, steps):
    empty = Batch(inputs=torch.ones(size, steps, 4), gap=torch.ones(size, steps))
    with pytest.raises(
        ValueError,
        match=f"the batch is empty: it has {size} sequences of {steps} steps, at least one of each is needed",
    ):
        check(empty)


def test_a_sequence_may_have_ended_before_a_continuation():
    over = batch(mask=torch.tensor([[True] * 5, [False] * 5]))
    check(over, continued=True)
    with pytest.raises(ValueError, match="empty"):
        check(over)


@pytest.mark.parametrize(("symbol", "good"), [(0, True), (6, True), (7, False), (-1, False)])
def test_symbols_belong_to_the_vocabulary(symbol, good):
    symbols = at(torch.ones(2, 5, dtype=torch.long), (1, 3), symbol)
    if good:
        check_batch(batch(inputs=symbols), input_size=None, vocabulary=7)
    else:
        with pytest.raises(ValueError, match=rf"inputs \[1, 3\] is {symbol}: symbols go from 0 to 6"):
            check_batch(batch(inputs=symbols), input_size=None, vocabulary=7)


def test_features_are_no_symbols():
    with pytest.raises(ValueError, match="this model takes one symbol a step, as an integer"):
        check_batch(batch(), input_size=None, vocabulary=7)


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        (
            "kind",
            torch.zeros(2, 4, dtype=torch.long),
            r"target 'kind' has shape \(2, 4\), its head \(per step\) needs \(2, 5\)",
        ),
        ("kind", torch.zeros(2, 5), "target 'kind' is torch.float32: classification needs integers"),
        (
            "kind",
            at(torch.zeros(2, 5, dtype=torch.long), (1, 1), 3),
            r"target 'kind' \[1, 1\] is 3: classes go from 0 to 2; -100 is not scored",
        ),
        ("kind", at(torch.zeros(2, 5, dtype=torch.long), (0, 2), -1), r"target 'kind' \[0, 2\] is -1"),
        (
            "value",
            torch.zeros(2, 5),
            r"target 'value' has shape \(2, 5\), its head \(per step\) needs \(2, 5, 2\)",
        ),
        (
            "value",
            torch.zeros(2, 5, 2, dtype=torch.long),
            "target 'value' is torch.int64: regression needs real numbers",
        ),
        (
            "value",
            at(torch.zeros(2, 5, 2), (1, 0, 1), float("inf")),
            r"target 'value' \[1, 0, 1\] is inf: regressed values must be finite; NaN is not scored",
        ),
        ("whole", torch.zeros(2, 5, dtype=torch.long), r"its head \(per sequence\) needs \(2,\)"),
    ],
)
def test_a_target_that_does_not_fit_its_head_is_named(name, target, message):
    with pytest.raises(ValueError, match=message):
        check_targets(batch(targets={**batch().targets, name: target}), HEADS)


def test_a_missing_target_is_named_with_the_nearest():
    targets = {"kinds": batch().targets["kind"]}
    with pytest.raises(ValueError, match="no target 'kind' for the head of that name: did you mean 'kinds'"):
        check_targets(batch(targets=targets), HEADS)


def test_the_model_checks_what_it_is_given():
    model = SequenceModel(HEADS, input_size=4, d_model=16, mixer="ssm")
    output = model(batch())
    with pytest.raises(ValueError, match="gap"):
        model(batch(gap=-torch.ones(2, 5)))
    with pytest.raises(ValueError, match="no target"):
        model.task_losses(output.outputs, batch(targets={}))
    model(batch(mask=torch.zeros(2, 5, dtype=torch.bool)), output.states)
    # To predict, no targets are needed.
    model(batch(targets={}))
