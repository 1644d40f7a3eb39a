"""The shapes in the signatures are not decoration: while the tests run, a wrong one raises."""

import contextlib

import pytest
import torch
from jaxtyping import TypeCheckError

from torchcram.tasks.oscillator import Oscillator
from torchcram.types import Head, KeyValueState
from typechecker import CALLS, begin_test


def oscillator(batch: int) -> Oscillator:
    return Oscillator(
        frequency=torch.ones(batch),
        damping=torch.ones(batch),
        phase=torch.ones(batch),
        stationary_std=1.0,
        observation_std=0.1,
    )


def memory(**changed: torch.Tensor) -> KeyValueState:
    return KeyValueState(
        **{
            "keys": torch.zeros(2, 4, 5, 8),
            "values": torch.zeros(2, 4, 5, 8),
            "time": torch.zeros(2),
            **changed,
        }
    )


def test_a_right_call_passes():
    assert oscillator(2).advance(torch.zeros(2, 2), torch.zeros(2)).shape == (2, 2)
    assert memory().keys.shape == (2, 4, 5, 8)


def test_a_batch_of_one_that_would_broadcast_raises():
    with pytest.raises(TypeCheckError, match="gap"):
        oscillator(2).advance(torch.zeros(2, 2), torch.zeros(1))


def test_a_wrong_width_raises():
    with pytest.raises(TypeCheckError, match="state"):
        oscillator(2).advance(torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"keys": torch.zeros(2, 4, 5, 8, dtype=torch.long)}, id="integers"),
        pytest.param({"values": torch.zeros(2, 4, 6, 8)}, id="another length"),
        pytest.param({"time": torch.zeros(1)}, id="a batch of one"),
    ],
)
def test_a_wrong_field_of_a_dataclass_raises(changed):
    with pytest.raises(TypeCheckError):
        memory(**changed)


def test_a_wrong_plain_type_raises():
    with pytest.raises(TypeCheckError):
        Head(name="answer", kind="clasification", size=2)


def test_a_long_test_is_checked_at_its_beginning_alone():
    two, wrong = oscillator(2), (torch.zeros(2, 3), torch.zeros(2))
    for _ in range(2 * CALLS):
        with contextlib.suppress(TypeCheckError):
            two.advance(*wrong)
    two.advance(*wrong)
    begin_test()
    with pytest.raises(TypeCheckError):
        two.advance(*wrong)
