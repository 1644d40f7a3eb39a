"""Each unseen task differs from SRCD in what it says, and in nothing else."""

import pytest
import torch
from pydantic import ValidationError

from torchcram.tasks.base import Task
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.tasks.srcd_oracle import any_layer_floor, exact_retrieval, kalman_mse
from torchcram.tasks.transfer import Transfer, TransferConfig

SHAPE = {"length": 96, "patterns": 12, "binding_share": 0.3, "query_share": 0.25}


def both(unseen, size=40, **changed):
    """The same sequences in SRCD and in the unseen task."""
    tasks = SRCD(SRCDConfig(**SHAPE, **changed)), Transfer(TransferConfig(unseen=unseen, **SHAPE, **changed))
    return tasks, [task.batch(size, generator=torch.Generator().manual_seed(0)) for task in tasks]


def test_a_new_readout_asks_for_the_class_of_the_same_value():
    (srcd, task), (old, new) = both("readout")
    assert torch.equal(old.inputs, new.inputs)
    query = old.slices["query"]
    value, class_ = old.targets["answer"], new.targets["answer"]
    assert torch.equal(class_[~query], value[~query])
    # A function of the value, evenly shared out.
    pairs = set(zip(value[query].tolist(), class_[query].tolist(), strict=True))
    assert len(pairs) == 16
    assert sorted(c for _, c in pairs) == [c for c in range(4) for _ in range(4)]
    assert (task.heads[0].size, srcd.heads[0].size) == (4, 16)


def test_a_readout_keeps_a_class_for_what_is_unanswerable():
    (_, task), (old, new) = both("readout", unanswerable=0.4)
    assert task.heads[0].size == 5
    assert torch.equal(old.targets["answer"] == 16, new.targets["answer"] == 4)


def test_new_dynamics_change_observations_and_no_answer():
    (srcd, task), (old, new) = both("dynamics")
    assert torch.equal(old.targets["answer"], new.targets["answer"])
    assert torch.equal(old.inputs[..., 2:], new.inputs[..., 2:])
    for name in ("frequency", "damping"):
        torch.testing.assert_close(new.info[name], 2.5 * old.info[name])
    # Its oracle knows them: the filter with the parameters of SRCD does worse.
    assert kalman_mse(new, config=task.config) < kalman_mse(old, config=srcd.config) * 2


def test_half_of_the_patterns_have_new_keys_and_the_others_stay():
    (srcd, task), (old, new) = both("new_keys")
    assert torch.equal(task.keys[:6], srcd.keys[:6])
    assert not (task.keys[6:] == srcd.keys[6:]).all(-1).any()
    assert torch.equal(task.pattern_values()[:6], srcd.pattern_values()[:6])
    assert not torch.equal(task.pattern_values()[6:], srcd.pattern_values()[6:])
    pattern, replaced = new.info["pattern"], new.slices["replaced"]
    assert torch.equal(replaced, new.slices["query"] & (pattern >= 6))
    assert replaced.any()
    assert torch.equal(old.info["pattern"], pattern)
    # Once learned, the new ones recur like the others.
    config = task.config
    assert any_layer_floor(new, config=config) == any_layer_floor(old, config=config)


@pytest.mark.parametrize("unseen", ["dynamics", "new_keys"])
def test_every_answer_can_be_looked_up(unseen):
    (_, task), (_, new) = both(unseen)
    assert torch.equal(exact_retrieval(new, config=task.config), new.targets["answer"])


@pytest.mark.parametrize("unseen", ["readout", "dynamics", "new_keys"])
def test_it_is_a_task(unseen):
    assert isinstance(Transfer(TransferConfig(unseen=unseen, **SHAPE)), Task)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": 17}, "classes 17 exceed the 16 values"),
        ({"unseen": "new_keys", "patterns": 1}, "new_keys replaces half of the patterns, but patterns is 1"),
        ({"unseen": "keys"}, "Input should be 'readout', 'dynamics' or 'new_keys'"),
    ],
)
def test_an_impossible_task_is_an_error(changed, message):
    with pytest.raises(ValidationError, match=message):
        TransferConfig(**{**SHAPE, **changed})
