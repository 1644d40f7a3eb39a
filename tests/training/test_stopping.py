"""Early stopping keeps the right model, and patience ends first acquisition, then training."""

import math

import pytest
import torch
from torch import nn

from torchcram.memory.block import CRAMBlock
from torchcram.memory.consolidator import Consolidator
from torchcram.memory.phases import ConsolidationRules
from torchcram.series.reading import NO_READS, ReadingTrainer, turns_of
from torchcram.series.task import EncodedSeries, SeriesTask
from torchcram.training.stopping import EarlyStopping, Judgement, learn
from torchcram.training.trainer import Trainer
from torchcram.training.training_progress import TrainingProgress
from torchcram.types import Head, RoutingControl

ALL, ROUTED, NONE = RoutingControl(reads="all"), RoutingControl(), RoutingControl(reads="none")


def good(model: nn.Module, control: RoutingControl) -> Judgement:
    return Judgement(loss=1.0)


def judged(stopping: EarlyStopping, losses: list[float], *, reads: float = 0.0) -> float:
    """Judge a model whose only weight counts judgements; return the weight of the one kept."""
    model = nn.Linear(1, 1, bias=False)
    for number, loss in enumerate(losses):
        nn.init.constant_(model.weight, number)
        stopping.judge(model, [(ROUTED, Judgement(loss=loss, reads=reads))])
    stopping.restore(model)
    return model.weight.item()


def test_the_best_model_is_kept_and_patience_counts_from_it():
    stopping = EarlyStopping(patience=2)
    assert judged(stopping, [3.0, 1.0, 2.0]) == 1
    assert not stopping.exhausted
    stopping.judge(nn.Linear(1, 1, bias=False), [(ROUTED, Judgement(loss=1.0))])
    assert stopping.exhausted


def test_a_model_that_reads_less_may_lose_as_much_as_its_reads_cost():
    model, stopping = nn.Linear(1, 1, bias=False), EarlyStopping(patience=9, price=0.1)
    stopping.judge(model, [(ALL, Judgement(loss=1.0, reads=2.0)), (NONE, Judgement(loss=1.19))])
    assert (stopping.control, stopping.judgement.loss) == (NONE, 1.19)
    stopping.judge(model, [(ALL, Judgement(loss=0.98, reads=2.0))])
    assert (stopping.control, stopping.judgement.loss) == (ALL, 0.98)
    assert stopping.waited == 0


def test_a_tiny_gain_is_kept_and_ends_no_waiting():
    stopping = EarlyStopping(patience=2)
    assert judged(stopping, [0.0100, 0.0096, 0.0092]) == 2
    assert stopping.exhausted
    # Many of them add up to one.
    assert judged(stopping := EarlyStopping(patience=2), [0.0100, 0.0094, 0.0088, 0.0082]) == 3
    assert not stopping.exhausted


def test_one_model_under_several_controls_is_one_judgement():
    stopping = EarlyStopping(patience=2)
    for _ in range(2):
        assert not stopping.exhausted
        bad = [(ALL, Judgement(loss=math.inf)), (NONE, Judgement(loss=math.nan))]
        stopping.judge(nn.Linear(1, 1, bias=False), bad)
    assert stopping.exhausted
    assert not stopping.kept


class Counting(Trainer):
    """A trainer whose model's only weight is the number of its steps."""

    def __init__(self, steps: int, *, routes: bool = True, acquire: int = 1000):
        self.plain, self.step = nn.Linear(1, 1, bias=False), 0
        rules = ConsolidationRules(acquire_steps=acquire, plateau_steps=1000, price_start=0.3)
        led = CRAMBlock(8, heads=1, slots=2)
        self.consolidator = Consolidator(led, rules, generator=None) if routes else None
        self.config = type("Config", (), {"training": type("Training", (), {"steps": steps})})

    def train_step(self) -> dict:
        self.step += 1
        if self.consolidator is not None:
            self.consolidator.phases.observe(self.step - 1, loss=1.0, read_rate=1.0)
            self.consolidator.steps = self.step
        nn.init.constant_(self.plain.weight, self.step)
        return {"phase": "any", "any_layer_read_rate": 1.0, "losses": {}}


def run(
    trainer: Counting, losses: dict[str, list[float]] | None, *, average: int = 0, price: float = 0.0
) -> RoutingControl:
    """Learn with held-out losses given by what may be read; the last one of each goes on for ever. All reads
    are one read a step."""

    def judge(model: nn.Module, control: RoutingControl) -> Judgement:
        assert losses is not None
        rest = losses[control.reads]
        loss = rest.pop(0) if len(rest) > 1 else rest[0]
        return Judgement(loss=loss, reads=float(control.reads == "all"))

    with TrainingProgress(steps=1, show=False) as progress:
        return learn(
            trainer,
            judge=None if losses is None else judge,
            every=1,
            patience=3,
            progress=progress,
            average=average,
            price=price,
        )


def test_patience_ends_acquisition_and_then_training():
    trainer = Counting(100)
    control = run(trainer, {"all": [5.0, 2.0, 3.0], "routed": [4.0, 1.0, 9.0]})
    # Two gains and three judgements without one, twice.
    assert trainer.acquired_at == 5
    assert trainer.step == 10
    assert trainer.plain.weight.item() == 7
    assert control.reads == "routed"


def test_acquisition_that_ends_by_itself_starts_routing_from_the_best_model_too():
    trainer = Counting(6, acquire=2)
    run(trainer, {"all": [3.0], "routed": [4.0, 2.0, 2.01, 2.5]})
    assert trainer.acquired_at == 2
    assert trainer.step == 6
    assert trainer.plain.weight.item() == 4


def test_models_are_judged_from_the_first_routed_step_on():
    """Fault 26: nothing was judged until the price had reached its bound."""
    trainer = Counting(9, acquire=2)
    trainer.consolidator.phases.rules = ConsolidationRules(
        acquire_steps=2, price_start=0.01, price_growth=1.0
    )
    control = run(trainer, {"all": [5.0], "routed": [1.0, 2.0]})
    assert (trainer.plain.weight.item(), control.reads) == (3.0, "routed")


def test_the_acquired_model_stays_if_routing_only_makes_it_worse():
    trainer = Counting(9, acquire=2)
    control = run(trainer, {"all": [2.0, 1.0], "routed": [1.2]})
    assert (trainer.plain.weight.item(), control.reads) == (2.0, "all")


def test_routing_that_costs_quality_is_told_where_the_price_pays_it():
    with pytest.warns(UserWarning, match="routing cost quality: the held-out loss is 1.2, it was 1 while"):
        control = run(Counting(9, acquire=2), {"all": [2.0, 1.0], "routed": [1.2]}, price=0.3)
    assert control.reads == "routed"


class Reading(ReadingTrainer, Counting):
    """The same, for a trainer that may do without reads."""

    turns = 2

    def train_step(self) -> dict:
        self.asked = [*getattr(self, "asked", []), self.control().reads]
        return super().train_step()


def test_long_series_are_read_in_turn_with_more_steps_that_read_nothing():
    """Fault 29's kind: one series of 12,000 steps among 200 of 20 is no reason to read in 26 turns."""
    series = [EncodedSeries(inputs=torch.zeros(n, 2), gap=torch.ones(n)) for n in [*[20] * 200, 12_000]]
    head = Head(name="y", kind="regression", size=1, per="sequence")
    task = SeriesTask(series, {"y": torch.zeros(201, 1)}, (head,))
    assert task.typical_length == pytest.approx((200 / 201 * 400 + 144e6 / 201) ** 0.5)
    assert [turns_of(length) for length in (26, 499, task.typical_length, 2000)] == [2, 2, 3, 6]


def test_without_reads_is_learned_by_turns_and_for_good_if_reads_do_not_pay():
    trainer = Reading(9, acquire=4)
    control = run(trainer, {"all": [1.0], "none": [1.01, 1.0, 0.9, 0.8, 0.7, 0.9]}, price=0.02)
    assert trainer.asked == ["all", "none", "all", "none", *["none"] * 4]
    assert trainer.phase == "consolidate"
    assert (trainer.step, trainer.plain.weight.item(), control) == (8, 5.0, NO_READS)


def test_reads_that_pay_are_routed():
    trainer = Reading(9, acquire=4)
    control = run(trainer, {"all": [1.0], "none": [2.0], "routed": [1.0, 0.9]}, price=0.02)
    assert trainer.asked[4:] == ["routed"] * 5
    assert control.reads == "routed"


def test_patience_without_reads_ends_training():
    trainer = Reading(99)
    control = run(trainer, {"all": [1.0], "none": [0.5, 0.6]})
    assert (trainer.step, trainer.plain.weight.item(), control.reads) == (4, 1.0, "none")


def test_without_a_judge_all_steps_are_taken_and_the_last_model_stays():
    trainer = Counting(4, acquire=2)
    control = run(trainer, None)
    assert (trainer.step, trainer.plain.weight.item(), control) == (4, 4.0, trainer.evaluation_control())


def test_models_that_do_not_route_are_stopped_once():
    trainer = Counting(100, routes=False)
    assert run(trainer, {"all": [2.0, 1.0, 3.0]}) == ALL
    assert (trainer.step, trainer.plain.weight.item()) == (5, 2.0)


def test_averages_are_judged_and_kept_while_training_goes_on_from_the_weights_themselves():
    seen, trainer = [], Counting(4, routes=False)

    def judge(model: nn.Module, control: RoutingControl) -> Judgement:
        seen.append(model.weight.item())
        return Judgement(loss=1.0 / len(seen))

    with TrainingProgress(steps=4, show=False) as progress:
        learn(trainer, judge=judge, every=1, patience=9, progress=progress, average=2)
    # Mean of two steps, then half of each further one. The trainer's own weight goes on counting, or the
    # third would not be 2.25.
    assert seen == [1.0, 1.5, 2.25, 3.125]
    assert trainer.plain.weight.item() == 3.125


def test_routing_begins_with_a_new_average():
    trainer = Counting(4, acquire=2)
    run(trainer, {"all": [4.0], "routed": [3.0, 2.0]}, average=100)
    assert trainer.plain.weight.item() == 3.5


def test_without_a_judge_the_last_average_stays():
    trainer = Counting(4, routes=False)
    run(trainer, None, average=100)
    assert trainer.plain.weight.item() == 2.5


def test_after_the_seconds_no_further_step_is_taken():
    trainer = Counting(9, routes=False)
    with TrainingProgress(steps=9, show=False) as progress:
        learn(trainer, judge=good, every=1, patience=9, progress=progress, seconds=0.0)
        assert trainer.step == 0
        learn(trainer, judge=good, every=1, patience=99, progress=progress, seconds=1000.0)
    assert trainer.step == 9
