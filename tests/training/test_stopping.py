"""Early stopping keeps the right model, and patience ends first acquisition, then training."""

import math

from torch import nn

from torchcram.memory.consolidation import ConsolidationController, ControllerConfig
from torchcram.training.stopping import EarlyStopping, learn
from torchcram.training.trainer import Trainer
from torchcram.training.training_progress import TrainingProgress
from torchcram.types import RoutingControl

ALL, ROUTED = RoutingControl(reads="all"), RoutingControl()


def judged(stopping: EarlyStopping, losses: list[float]) -> float:
    """Judge a model whose only weight counts judgements; return the weight of the one kept."""
    model = nn.Linear(1, 1, bias=False)
    for number, loss in enumerate(losses):
        nn.init.constant_(model.weight, number)
        stopping.judge(loss, model, ROUTED)
    stopping.restore(model)
    return model.weight.item()


def test_the_best_model_is_kept_and_patience_counts_from_it():
    stopping = EarlyStopping(patience=2)
    assert judged(stopping, [3.0, 1.0, 2.0]) == 1
    assert not stopping.exhausted
    stopping.judge(1.0, nn.Linear(1, 1, bias=False), ROUTED)
    assert stopping.exhausted


def test_with_tolerance_a_later_model_that_is_about_as_good_takes_its_place():
    assert judged(EarlyStopping(patience=9, tolerance=0.01), [1.0, 1.005, 1.02]) == 1
    assert judged(EarlyStopping(patience=9), [1.0, 1.005, 1.02]) == 0


def test_a_loss_that_is_no_number_is_never_kept():
    stopping = EarlyStopping(patience=9)
    judged(stopping, [math.nan])
    assert not stopping.kept


class Counting(Trainer):
    """A trainer whose model's only weight is the number of its steps."""

    routed_loss = 1.0

    def __init__(self, steps: int, *, routes: bool = True, acquire: int = 1000, price: float = 0.3):
        self.plain, self.step, self.routes = nn.Linear(1, 1, bias=False), 0, routes
        self.controller = ConsolidationController(
            ControllerConfig(acquire_steps=acquire, plateau_steps=1000, price_start=price, price_growth=1.5)
        )
        self.config = type("Config", (), {"training": type("Training", (), {"steps": steps})})

    def evaluation_control(self) -> RoutingControl:
        return self.controller.evaluation_control() if self.routes else ALL

    def train_step(self) -> dict:
        self.controller.observe_reference(1.0, routed=self.routed_loss)
        self.controller.observe(self.step, loss=1.0, read_rate=1.0)
        self.step += 1
        nn.init.constant_(self.plain.weight, self.step)
        return {"phase": "any", "any_layer_read_rate": 1.0, "losses": {}}


def run(trainer: Counting, losses: dict[str, list[float]] | None, *, average: int = 0) -> RoutingControl:
    """Learn with held-out losses given by what may be read; the last one of each goes on for ever."""

    def judge(model: nn.Module, control: RoutingControl) -> float:
        assert losses is not None
        rest = losses[control.reads]
        return rest.pop(0) if len(rest) > 1 else rest[0]

    with TrainingProgress(steps=1, show=False) as progress:
        return learn(
            trainer,
            judge=None if losses is None else judge,
            every=1,
            patience=3,
            progress=progress,
            average=average,
        )


def test_patience_ends_acquisition_and_then_training():
    trainer = Counting(100)
    control = run(trainer, {"all": [5.0, 2.0, 3.0], "routed": [4.0, 3.0, 9.0]})
    # Two gains and three judgements without one, twice.
    assert trainer.controller.acquired_at == 5
    assert trainer.step == 10
    assert trainer.plain.weight.item() == 7
    assert control.reads == "routed"


def test_acquisition_that_ends_by_itself_starts_routing_from_the_best_model_too():
    trainer = Counting(6, acquire=2)
    run(trainer, {"all": [1.0], "routed": [3.0, 2.0, 2.01, 2.5]})
    assert trainer.controller.acquired_at == 2
    assert trainer.step == 6
    assert trainer.plain.weight.item() == 5


def test_once_it_routes_models_count_when_reads_cost_what_they_are_to_cost_in_the_end():
    """0.15 after two steps, 0.23 after the third, 0.3 after the fourth: models before that still read
    almost everything."""
    trainer = Counting(9, acquire=2, price=0.15)
    control = run(trainer, {"all": [1.0], "routed": [3.0, 2.0, 2.5]})
    assert trainer.plain.weight.item() == 5
    assert (trainer.step, control.reads) == (8, "routed")


def test_if_the_price_never_comes_to_its_bound_the_last_model_stays():
    trainer = Counting(9, acquire=2, price=0.01)
    trainer.routed_loss = 9.0
    control = run(trainer, {"all": [1.0], "routed": [3.0]})
    assert (trainer.step, trainer.plain.weight.item(), control.reads) == (9, 9.0, "routed")


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

    def judge(model: nn.Module, control: RoutingControl) -> float:
        seen.append(model.weight.item())
        return 1.0 / len(seen)

    with TrainingProgress(steps=4, show=False) as progress:
        learn(trainer, judge=judge, every=1, patience=9, progress=progress, average=2)
    # Mean of two steps, then half of each further one. The trainer's own weight goes on counting, or the
    # third would not be 2.25.
    assert seen == [1.0, 1.5, 2.25, 3.125]
    assert trainer.plain.weight.item() == 3.125


def test_routing_begins_with_a_new_average():
    trainer = Counting(4, acquire=2)
    run(trainer, {"all": [1.0], "routed": [3.0, 2.0]}, average=100)
    assert trainer.plain.weight.item() == 3.5


def test_without_a_judge_the_last_average_stays():
    trainer = Counting(4, routes=False)
    run(trainer, None, average=100)
    assert trainer.plain.weight.item() == 2.5


def test_after_the_seconds_no_further_step_is_taken():
    trainer = Counting(9, routes=False)
    with TrainingProgress(steps=9, show=False) as progress:
        learn(trainer, judge=lambda model, control: 1.0, every=1, patience=9, progress=progress, seconds=0.0)
        assert trainer.step == 0
        learn(
            trainer, judge=lambda model, control: 1.0, every=1, patience=99, progress=progress, seconds=1000.0
        )
    assert trainer.step == 9
