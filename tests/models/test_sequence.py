"""The whole model: inputs of both kinds, irregular times, a loss for each head over the scored targets,
state carried from piece to piece."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lived import assert_same, live, state_tensors, tensors
from torchcram.mixers import MIXERS
from torchcram.models.sequence import SequenceModel, TimeFeatures, head_loss, scored
from torchcram.types import Batch, Head, Learning, RoutingControl

BATCH, TIME, NAN = 3, 8, float("nan")
ROUTED, TRAINING = RoutingControl(), RoutingControl(learning=Learning(exploration=0.3, consolidate=True))
HEADS = (
    Head(name="class", kind="classification", size=4),
    Head(name="value", kind="regression", size=2),
    Head(name="kind", kind="classification", size=3, per="sequence"),
    Head(name="level", kind="regression", size=1, per="sequence"),
)

pytestmark = pytest.mark.usefixtures("float64")


def batch(*, symbols: bool = False, seed: int = 0, **changed) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = (
        torch.randint(7, (BATCH, TIME), generator=generator)
        if symbols
        else torch.randn(BATCH, TIME, 5, generator=generator)
    )
    gap, horizon = torch.rand(2, BATCH, TIME, generator=generator)
    targets = {
        "class": torch.randint(4, (BATCH, TIME), generator=generator),
        "value": torch.randn(BATCH, TIME, 2, generator=generator),
        "kind": torch.randint(3, (BATCH,), generator=generator),
        "level": torch.randn(BATCH, 1, generator=generator),
    }
    return replace(Batch(inputs=inputs, gap=gap, horizon=horizon, targets=targets), **changed)


def model(*, symbols: bool = False, **options) -> SequenceModel:
    sizes = {"vocabulary": 7} if symbols else {"input_size": 5}
    return live(SequenceModel(HEADS, **sizes, **{"d_model": 32, **options}))


def steps(given: Batch, start: int, stop: int) -> Batch:
    return replace(
        given,
        inputs=given.inputs[:, start:stop],
        gap=given.gap[:, start:stop],
        horizon=given.horizon[:, start:stop],
        targets={},
    )


@pytest.mark.parametrize("symbols", [False, True], ids=["continuous", "symbols"])
def test_each_head_gives_an_output_of_its_size(symbols):
    outputs = model(symbols=symbols)(batch(symbols=symbols)).outputs
    sizes = {name: tuple(output.shape) for name, output in outputs.items()}
    assert sizes == {
        "class": (BATCH, TIME, 4),
        "value": (BATCH, TIME, 2),
        "kind": (BATCH, 3),
        "level": (BATCH, 1),
    }


@pytest.mark.parametrize("symbols", [False, True], ids=["continuous", "symbols"])
def test_every_input_counts(symbols):
    """Another symbol or feature, another gap, another horizon: each changes the output of its step."""
    lived, given = model(symbols=symbols), batch(symbols=symbols)
    before = lived(given).outputs["class"]
    others = {
        "inputs": (given.inputs + 1) % 7 if symbols else given.inputs + 1,
        "gap": given.gap + 1,
        "horizon": given.horizon + 1,
    }
    for name, other in others.items():
        assert (lived(replace(given, **{name: other})).outputs["class"] - before).abs().amax(
            -1
        ).min() > 1e-3, name


@pytest.mark.parametrize("mixer", MIXERS)
def test_pieces_with_carried_states_are_the_whole(mixer):
    lived, given = model(mixer=mixer, layers=3).eval(), batch()
    whole, states, pieces = lived(given, control=ROUTED), None, []
    for start, stop in ((0, 1), (1, 5), (5, TIME)):
        pieces.append(lived(steps(given, start, stop), states, control=ROUTED))
        states = pieces[-1].states
    assert len(states) == 3
    torch.testing.assert_close(
        torch.cat([piece.outputs["class"] for piece in pieces], 1),
        whole.outputs["class"],
        rtol=1e-9,
        atol=1e-9,
    )
    torch.testing.assert_close(pieces[-1].outputs["kind"], whole.outputs["kind"], rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(states, whole.states, strict=True):
        assert_same(state_tensors(ours), state_tensors(theirs))


def test_nothing_that_a_later_step_brings_reaches_an_earlier_one():
    lived, given, noise = model(), batch(), torch.rand(BATCH, TIME, 2, 4)
    other = batch(seed=1)
    mixed = replace(
        given,
        **{
            name: torch.cat([getattr(given, name)[:, :5], getattr(other, name)[:, 5:]], 1)
            for name in ("inputs", "gap", "horizon")
        },
    )
    for control, drawn in ((ROUTED, None), (TRAINING, noise)):
        before, after = (lived(one, control=control, noise=drawn) for one in (given, mixed))
        torch.testing.assert_close(
            before.outputs["value"][:, :5], after.outputs["value"][:, :5], rtol=1e-9, atol=1e-9
        )
        for ours, theirs in zip(before.blocks, after.blocks, strict=True):
            assert_same(
                *(
                    {name: values[:, :5] for name, values in tensors(block).items()}
                    for block in (ours, theirs)
                )
            )


def test_each_layer_has_noise_of_its_own():
    lived, given, noise = model(), batch(), torch.full((BATCH, TIME, 2, 4), 0.99)
    noise[:, :, 1, 3] = 0.0
    first, second = (block.decision.explored for block in lived(given, control=TRAINING, noise=noise).blocks)
    assert not first.any()
    assert second.any()


def test_a_sequence_is_read_at_its_last_real_step():
    lived, given = model(), batch()
    mask = torch.arange(TIME) < torch.tensor([TIME, 3, 1])[:, None]
    outputs = lived(replace(given, mask=mask)).outputs
    for row, length in enumerate((TIME, 3, 1)):
        alone = lived(steps(given, 0, length).rows(row, row + 1)).outputs
        torch.testing.assert_close(outputs["kind"][row], alone["kind"][0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(outputs["class"][row, :length], alone["class"][0], rtol=1e-9, atol=1e-9)


# losses


def outputs_for(given: Batch) -> dict[str, Tensor]:
    shapes = {"class": (BATCH, TIME, 4), "value": (BATCH, TIME, 2), "kind": (BATCH, 3), "level": (BATCH, 1)}
    return {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}


def test_losses_are_means_over_all_targets_where_all_are_scored():
    given = batch()
    outputs = outputs_for(given)
    losses = model().task_losses(outputs, given)
    assert list(losses) == [head.name for head in HEADS]
    for name, width in (("class", 4), ("kind", 3)):
        torch.testing.assert_close(
            losses[name], cross_entropy(outputs[name].view(-1, width), given.targets[name].view(-1))
        )
    for name in ("value", "level"):
        torch.testing.assert_close(losses[name], (outputs[name] - given.targets[name]).square().mean())


def test_targets_that_are_not_scored_count_nowhere():
    given, keep = batch(), torch.rand(BATCH, TIME) < 0.5
    targets = {
        **given.targets,
        "class": torch.where(keep, given.targets["class"], -100),
        "value": torch.where(keep[..., None], given.targets["value"], NAN),
    }
    targets["value"][0, :, 1] = NAN
    given = replace(given, targets=targets)
    outputs = outputs_for(given)
    losses = {head.name: head_loss(head, outputs[head.name], given) for head in HEADS}
    torch.testing.assert_close(losses["class"], cross_entropy(outputs["class"][keep], targets["class"][keep]))
    there = ~targets["value"].isnan()
    torch.testing.assert_close(losses["value"], (outputs["value"] - targets["value"])[there].square().mean())
    sum(losses.values()).backward()
    assert torch.equal(outputs["value"].grad != 0, there)
    assert torch.equal((outputs["class"].grad != 0).any(-1), keep)


def test_padding_is_not_scored_at_steps_and_does_not_matter_for_sequences():
    mask = torch.arange(TIME) < torch.tensor([TIME, 3, 1])[:, None]
    given = batch(mask=mask)
    kept = {head.name: scored(head, given) for head in HEADS}
    assert torch.equal(kept["class"], mask)
    assert torch.equal(kept["value"], mask[..., None].expand(-1, -1, 2))
    assert kept["kind"].all()
    assert kept["level"].all()


def test_without_a_scored_target_a_loss_is_zero_and_so_is_its_gradient():
    given = batch(
        targets={"class": torch.full((BATCH, TIME), -100), "value": torch.full((BATCH, TIME, 2), NAN)}
    )
    outputs = outputs_for(given)
    for head in HEADS[:2]:
        loss = head_loss(head, outputs[head.name], given)
        loss.backward()
        assert loss.item() == 0
        assert not outputs[head.name].grad.any()


def test_losses_of_low_precision_outputs_are_computed_in_fp32():
    given = batch()
    for head in HEADS[:2]:
        targets = {
            name: target.float() if target.is_floating_point() else target
            for name, target in given.targets.items()
        }
        assert (
            head_loss(
                head,
                torch.randn(BATCH, TIME, head.size, dtype=torch.bfloat16),
                replace(given, targets=targets),
            ).dtype
            == torch.float32
        )


# construction


def test_blocks_are_part_of_the_module():
    assert sum(name.startswith("blocks.1.") for name in model().state_dict()) > 10


@pytest.mark.parametrize("sizes", [{}, {"input_size": 3, "vocabulary": 7}])
def test_inputs_are_either_continuous_or_symbols(sizes):
    with pytest.raises(ValueError, match=r"give either input_size .* or vocabulary"):
        SequenceModel(HEADS, **sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "crammed"}, r"unknown mixer 'crammed': did you mean 'cram'\?"),
        ({"options": {"slotts": 3}}, r"unknown option 'slotts' .* did you mean 'slots'\?"),
    ],
)
def test_unknown_mixers_and_options_name_the_way_out(options, message):
    with pytest.raises(ValueError, match=message):
        model(**options)


def test_a_bad_batch_is_refused():
    with pytest.raises(ValueError, match="gap"):
        model()(batch(gap=-torch.ones(BATCH, TIME)))
    with pytest.raises(ValueError, match="the batch has no target 'class'"):
        model().task_losses({}, batch(targets={}))


def test_time_features_tell_spans_apart_and_stay_bounded():
    features = TimeFeatures(frequencies=4, lowest=0.5, highest=8.0)
    torch.testing.assert_close(features.frequency[[0, -1]], torch.tensor([0.5, 8.0]))
    spans = torch.tensor([0.0, 1e-3, 0.5, 3.0, 1e6])
    seen = features(spans)
    assert seen.shape == (5, features.size)
    assert seen.abs().max() < 15
    torch.testing.assert_close(seen[0], torch.tensor([1.0] * 4 + [0.0] * 4 + [0.0, 1.0]))
    assert torch.cdist(seen, seen).fill_diagonal_(1).min() > 1e-3
