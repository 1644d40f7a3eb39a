"""A model around an encoder keeps the promises of the whole model: an output for each head, padding that
is nothing, gradients for all."""

from dataclasses import replace

import pytest
import torch

from lived import live
from torchcram.memory.consolidator import parameter_groups
from torchcram.models.encoder import ENCODERS, EncoderModel
from torchcram.types import Batch, Head, RoutingControl

VARIABLES, BATCH, TIME, WIDTH = 4, 3, 8, 16
HEADS = (
    Head(name="class", kind="classification", size=5),
    Head(name="kind", kind="classification", size=3, per="sequence"),
    Head(name="level", kind="regression", size=1, per="sequence"),
)

pytestmark = pytest.mark.usefixtures("float64")


def batch(*, seed: int = 0, flags: bool = True, time: int = TIME) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(BATCH, time, VARIABLES, generator=generator)
    seen = (torch.rand(BATCH, time, VARIABLES, generator=generator) < 0.5).double()
    return Batch(
        inputs=torch.cat([values * seen, seen], -1) if flags else values,
        gap=torch.rand(BATCH, time, generator=generator),
        targets={
            "class": torch.randint(5, (BATCH, time), generator=generator),
            "kind": torch.randint(3, (BATCH,), generator=generator),
            "level": torch.randn(BATCH, 1, generator=generator),
        },
        mask=torch.arange(time) < torch.tensor([TIME, 5, 1])[:, None],
    )


def model_of(encoder: str, *, flags: bool = True) -> EncoderModel:
    return live(
        EncoderModel(HEADS, input_size=VARIABLES * (1 + flags), flags=flags, d_model=WIDTH, encoder=encoder)
    )


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("flags", [True, False])
def test_each_head_gives_an_output_of_its_size(encoder, flags):
    outputs = model_of(encoder, flags=flags)(batch(flags=flags)).outputs
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "class": (BATCH, TIME, 5),
        "kind": (BATCH, 3),
        "level": (BATCH, 1),
    }


@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_changes_nothing_and_rows_do_not_meet(encoder):
    model, given, rubbish = model_of(encoder), batch(), batch(seed=1, time=TIME + 3)
    mask = torch.arange(TIME + 3) < torch.tensor([TIME, 5, 1])[:, None]

    def joined(ours, theirs):
        room = torch.zeros(BATCH, 3, *ours.shape[2:], dtype=ours.dtype)
        return torch.where(
            mask.view(*mask.shape, *[1] * (ours.dim() - 2)), torch.cat([ours, room], 1), 9 * theirs.abs()
        )

    padded = Batch(inputs=joined(given.inputs, rubbish.inputs), gap=joined(given.gap, rubbish.gap), mask=mask)
    found = model(padded).outputs
    for row, length in enumerate((TIME, 5, 1)):
        alone = given.rows(row, row + 1)
        alone = model(
            replace(alone, inputs=alone.inputs[:, :length], gap=alone.gap[:, :length], mask=None)
        ).outputs
        torch.testing.assert_close(found["class"][row, :length], alone["class"][0])
        for name in ("kind", "level"):
            torch.testing.assert_close(found[name][row], alone[name][0])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_gets_a_gradient(encoder):
    model, given = model_of(encoder), batch()
    sum(model.task_losses(model(given).outputs, given).values()).backward()
    assert [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ] == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    (group,) = parameter_groups(model, 0.01)
    assert len(group["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_weight_is_saved_once(encoder):
    model = model_of(encoder)
    assert sorted(model.state_dict()) == sorted(name for name, _ in model.named_parameters())
    assert len({weight.data_ptr() for weight in model.state_dict().values()}) == len(model.state_dict())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_values_count_only_where_they_were_observed(encoder):
    model, given = model_of(encoder), batch()
    values, seen = given.inputs.chunk(2, -1)
    hidden = replace(given, inputs=torch.cat([torch.where(seen > 0, values, 7.0), seen], -1))
    torch.testing.assert_close(model(hidden).outputs, model(given).outputs)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gaps_count(encoder):
    model, given = model_of(encoder), batch()
    before, after = model(given).outputs, model(replace(given, gap=given.gap + 0.5)).outputs
    assert (before["class"] - after["class"]).abs().max() > 1e-3


@pytest.mark.parametrize("encoder", ENCODERS)
def test_it_reads_at_no_step_whatever_it_may(encoder):
    (block,) = model_of(encoder)(batch(), control=RoutingControl(reads="all")).blocks
    assert not block.decision.computed.any()
    assert not model_of(encoder).routed


def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(ValueError, match=r"unknown encoder 'gru': did you mean 'grud'\?"):
        EncoderModel(HEADS, input_size=4, flags=False, encoder="gru")
    with pytest.raises(
        ValueError, match=r"unknown option 'reference' of encoder 'mtand': did you mean 'references'\?"
    ):
        EncoderModel(HEADS, input_size=4, flags=False, encoder="mtand", options={"reference": 3})
    with pytest.raises(ValueError, match="input_size 5 is odd"):
        EncoderModel(HEADS, input_size=5, flags=True)
    with pytest.raises(ValueError, match="takes masked vectors, but the task's steps are symbols"):
        EncoderModel(HEADS, input_size=None, flags=False)
    with pytest.raises(ValueError, match="no states to carry on from"):
        model_of("grud")(batch(), [])
