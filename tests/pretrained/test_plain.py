"""What goes to plain data comes back the same; what is not the same is said."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.plain import from_plain, to_plain


@dataclass(frozen=True, kw_only=True)
class Probe:
    weight: Float[Tensor, "inputs outputs"]
    strength: float


@dataclass(frozen=True, kw_only=True)
class Result:
    probes: dict[int, list[Probe]]
    shares: tuple[float, ...]
    pair: tuple[Probe, ...]
    anything: dict[str, Any]


def result() -> Result:
    probe = Probe(weight=torch.arange(6.0).reshape(2, 3), strength=0.5)
    return Result(
        probes={3: [probe, probe], 1: []}, shares=(0.1, 0.2), pair=(probe,), anything={"a": [1, {"b": None}]}
    )


def test_dataclasses_are_dictionaries_of_their_fields_at_any_depth():
    plain = to_plain(result())
    assert plain["probes"][3][0].keys() == {"weight", "strength"}
    assert plain["shares"] == (0.1, 0.2)
    assert plain["anything"] == {"a": [1, {"b": None}]}


def test_what_is_plain_comes_back_in_its_types():
    again = from_plain(Result, to_plain(result()))
    assert list(again.probes) == [3, 1]
    assert again.probes[3][1].strength == 0.5
    assert torch.equal(again.pair[0].weight, result().pair[0].weight)
    assert again.shares == (0.1, 0.2)
    assert again.anything == result().anything
    assert [type(one) for one in from_plain(list[Result], [to_plain(result())])] == [Result]


def test_tensors_are_not_copied():
    probe = Probe(weight=torch.ones(1, 1), strength=0.0)
    assert from_plain(Probe, to_plain(probe)).weight is probe.weight


@pytest.mark.parametrize(
    "plain", [{"weight": torch.ones(1, 1)}, {"weight": 1, "strength": 1, "bias": 0}, [1]]
)
def test_other_fields_are_refused(plain: Any):
    with pytest.raises(ValueError, match="Probe has the fields weight, strength"):
        from_plain(Probe, plain)
