"""Padding is nothing: whatever stands on padded steps, and however many there are, nothing anywhere changes.

Two batches with the same real steps, one of them with other rubbish behind them and more of it, are followed
through everything that sees a batch: outputs, decisions, losses, gradients, what semantic memory learns,
running statistics, rates, evaluation, calibration, exposures and route maps.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from lived import assert_same, live, tensors
from torchcram.calibration.curve import risk_curve
from torchcram.mixers import MIXERS
from torchcram.models.sequence import SequenceModel
from torchcram.tasks.base import Floors
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.training.evaluate import Tally, route_map
from torchcram.training.exposures import ExposureCounter
from torchcram.training.ledger import Ledger, familiarity_record
from torchcram.training.thresholds import sequence_judge
from torchcram.types import Batch, Head, Learning, RoutingControl

TIME, LAYERS, PATTERNS = 7, 2, 5
HEADS = (
    Head(name="answer", kind="classification", size=4),
    Head(name="value", kind="regression", size=2),
    Head(name="kind", kind="classification", size=3, per="sequence"),
)
TRAINING = RoutingControl(learning=Learning(exploration=0.3, consolidate=True))
SLICES = ("query", "recurring", "novel")
lengths = st.lists(st.integers(1, TIME), min_size=2, max_size=4)


def content(rows: int, time: int, *, seed: int) -> Batch:
    """A batch of random steps, without a mask."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(-1, 4, (rows, time), generator=generator)
    return Batch(
        inputs=torch.randn(rows, time, 3, generator=generator, dtype=torch.float64),
        gap=torch.rand(rows, time, generator=generator, dtype=torch.float64),
        horizon=torch.rand(rows, time, generator=generator, dtype=torch.float64),
        targets={
            "answer": torch.where(label < 0, -100, label),
            "value": torch.randn(rows, time, 2, generator=generator, dtype=torch.float64),
            "kind": torch.randint(3, (rows,), generator=generator),
        },
        slices={name: torch.rand(rows, time, generator=generator) < 0.5 for name in SLICES},
        info={"pattern": torch.randint(PATTERNS, (rows, time), generator=generator)},
    )


def padded(real: Batch, steps: list[int], *, more: int, seed: int) -> Batch:
    """The same real steps, other rubbish behind them."""
    rubbish = content(real.size, TIME + more, seed=seed)
    mask = torch.arange(TIME + more) < torch.tensor(steps)[:, None]

    def joined(ours: Tensor, theirs: Tensor) -> Tensor:
        room = (0, 0) * (ours.dim() - 2) + (0, more)
        chosen = mask.view(*mask.shape, *[1] * (ours.dim() - 2))
        return torch.where(chosen, pad(ours, room), 50 * theirs if theirs.is_floating_point() else theirs)

    per_step = {
        name: joined(getattr(real, name), getattr(rubbish, name)) for name in ("inputs", "gap", "horizon")
    }
    groups = {
        name: {key: joined(value, getattr(rubbish, name)[key]) for key, value in getattr(real, name).items()}
        for name in ("slices", "info")
    }
    targets = {
        name: joined(value, rubbish.targets[name]) if value.dim() > 1 else value
        for name, value in real.targets.items()
    }
    return Batch(**per_step, **groups, targets=targets, mask=mask)


def pair(steps: list[int], more: int, seed: int) -> Iterator[tuple[Batch, Tensor]]:
    """Two batches with the same real steps, and the noise of each: the same on real steps."""
    real, noise = (
        content(len(steps), TIME, seed=seed),
        torch.rand(len(steps), TIME, LAYERS, 4, dtype=torch.float64),
    )
    for extra, other in ((0, seed + 1), (more, seed + 2)):
        yield padded(real, steps, more=extra, seed=other), pad(noise, (0, 0, 0, 0, 0, extra), value=0.0)


def model_of(mixer: str) -> SequenceModel:
    options = {"slots": 16} if mixer == "cram" else {}
    return live(SequenceModel(HEADS, input_size=3, d_model=16, layers=LAYERS, mixer=mixer, options=options))


def on_real_steps(said: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    return {name: values[batch.mask] for name, values in said.items()}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("mixer", MIXERS)
@settings(max_examples=3, phases=[Phase.generate])
@given(steps=lengths, more=st.integers(0, 9), seed=st.integers(0, 99))
def test_a_training_step_does_not_see_padding(mixer, steps, more, seed):
    found = []
    torch.set_default_dtype(torch.float64)
    born = model_of(mixer)
    for batch, noise in pair(steps, more, seed):
        model = deepcopy(born)
        output = model(batch, control=TRAINING, noise=noise)
        losses = model.task_losses(output.outputs, batch)
        side = {
            f"{name} of layer {i}": value
            for i, block in enumerate(output.blocks)
            for name, value in block.losses.items()
        }
        sum([*losses.values(), *side.values()]).backward()
        gradients = {
            f"gradient of {name}": weight.grad
            for name, weight in model.named_parameters()
            if weight.grad is not None
        }
        for block, said in zip(model.blocks, output.blocks, strict=True):
            block.after_step(said)
        seen = {
            f"{name} in layer {i}": values
            for i, said in enumerate(output.blocks)
            for name, values in on_real_steps(tensors(said), batch).items()
        }
        outputs = {
            name: value if name == "kind" else value[batch.mask] for name, value in output.outputs.items()
        }
        found.append({**outputs, **losses, **side, **gradients, **seen, **model.state_dict()})
    assert_same(*found)


def flat(record: object) -> list[float]:
    """All numbers of a record, in order; None is NaN."""
    if isinstance(record, dict):
        return [number for key in sorted(record) for number in flat(record[key])]
    if isinstance(record, list | tuple):
        return [number for entry in record for number in flat(entry)]
    return [float("nan") if record is None else float(record)]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("mixer", ["cram", "cram_paper", "mixture_of_depths", "transformer"])
@settings(max_examples=3, phases=[Phase.generate])
@given(steps=lengths, more=st.integers(0, 9), seed=st.integers(0, 99))
def test_no_statistic_counts_padding(mixer, steps, more, seed):
    found = []
    torch.set_default_dtype(torch.float64)
    model = model_of(mixer).eval()
    for batch, noise in pair(steps, more, seed):
        with torch.no_grad():
            output = model(batch, control=TRAINING, noise=noise)
        ledger, tally, exposures = (
            Ledger(model),
            Tally(model),
            ExposureCounter(SRCD(SRCDConfig(patterns=PATTERNS))),
        )
        rates = ledger.enter(output, batch)
        # How long the longest sequence is, padding and all, is the one thing that tells of it.
        assert rates.pop("length") == batch.gap.shape[1]
        floors = Floors(needs_read=batch.slices["novel"])
        tally.add(output, batch, floors)
        exposures.count(batch, output, routed=True)
        judge = sequence_judge(
            model,
            batch,
            HEADS[0],
            skippable=batch.group("recurring"),
            most_cautious=14.0,
            reference="cautious",
        )
        curve = risk_curve(judge, units=batch.size, shifts=(14.0, 1.0, 0.0, -1.0))
        parts = {
            "rates": rates,
            "costs": ledger.counts,
            "familiarity": familiarity_record(output, batch),
            "evaluation": tally.record(),
            "sums": dict(tally.sums),
            "exposures": exposures.record(),
            "patterns": exposures.state_dict(),
            "risk": curve.losses.tolist(),
            "skipped": curve.skipped.tolist(),
            "reads": curve.reads.tolist(),
            "map": route_map(model, batch, control=RoutingControl(), floors=floors),
        }
        found.append({name: torch.tensor(flat(part)) for name, part in parts.items()})
    assert_same(*found)


def test_the_two_batches_differ_where_they_may():
    (one, _), (other, _) = pair([3, 7], 2, 0)
    assert other.gap.shape == (2, TIME + 2)
    assert torch.equal(one.inputs[one.mask], other.inputs[other.mask])
    assert not torch.equal(one.inputs[0, 3:], other.inputs[0, 3:TIME])
    assert replace(one, mask=None).real.all()
    assert torch.equal(one.group("query"), one.slices["query"] & one.mask)
