"""Early stopping: training that ends, and decides when to route, by what held-out data say.

Two stretches, each ended by patience. While everything reads, a held-out loss that no longer falls ends
acquisition, from the best model so far: what has been learned by heart only is not consolidated. Once the
router decides *and the price of a read has climbed to its bound*, the latest model that is about as good as
the best is kept, for reads fall with time; those before still read almost everything. If the price never
comes so far, the last model stays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from torchcram.training.trainer import Trainer
from torchcram.training.training_progress import TrainingProgress
from torchcram.types import RoutingControl


class EarlyStopping:
    """The best model so far, by held-out loss.

    Args:
        patience: judgements without a gain before training should stop.
        tolerance: share by which a later model may be worse and still takes the place of an earlier one; it
            is no gain.
    """

    def __init__(self, *, patience: int, tolerance: float = 0.0):
        self.patience, self.tolerance = patience, tolerance
        self.best, self.waited = math.inf, 0
        self.kept: dict[str, Tensor] = {}
        self.control = RoutingControl(reads="all")

    def judge(self, loss: float, model: nn.Module, control: RoutingControl) -> None:
        """Take note of a model's held-out loss (at least 0), and of what it was allowed to read."""
        self.waited = 0 if loss < self.best else self.waited + 1
        if loss <= self.best * (1 + self.tolerance):
            self.kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
            self.control = control
        self.best = min(self.best, loss)

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.waited >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Give a model back the weights of the kept one, if one was kept."""
        if self.kept:
            model.load_state_dict(self.kept)


def learn(
    trainer: Trainer,
    *,
    judge: Callable[[nn.Module, RoutingControl], float] | None,
    every: int,
    patience: int,
    progress: TrainingProgress,
    tolerance: float = 0.01,
    seconds: float = math.inf,
    average: int = 0,
) -> RoutingControl:
    """Train until the steps of the configuration are done or patience runs out; return what the model may
    read from now on.

    Args:
        trainer: at its first step.
        judge: held-out loss of a model, the trainer's or an average of it, under a control; None trains all
            the steps and keeps the last model.
        every: steps between judgements.
        patience: judgements without a gain that end a stretch.
        progress: where training is shown.
        tolerance: see :class:`EarlyStopping`; for models that route.
        seconds: after which no further step is taken.
        average: steps over which the parameters are averaged that are judged and kept (Polyak and Juditsky
            1992); 0 or 1 for those of the last step. What is no parameter is always the latest.
    """
    mean = _average(trainer.plain, steps=average)
    stopping, total, end = (
        EarlyStopping(patience=patience),
        trainer.config.training.steps,
        time.monotonic() + seconds,
    )
    while trainer.step < total and time.monotonic() < end:
        control, acquiring = (
            trainer.evaluation_control(),
            trainer.routes and trainer.controller.phase == "acquire",
        )
        record = trainer.train_step()
        mean.update_parameters(trainer.plain)
        progress.trained(trainer.step, record, record["phase"])
        acquired = acquiring and trainer.controller.phase != "acquire"
        if judge is None:
            continue
        if (acquiring or _priced(trainer)) and (
            trainer.step % every == 0 or trainer.step == total or acquired
        ):
            stopping.judge(judge(mean.module, control), mean.module, control)
        if acquiring and (acquired or stopping.exhausted):
            stopping.restore(trainer.plain)
            mean = _average(trainer.plain, steps=average)
            if not acquired:
                trainer.controller.begin_routing(trainer.step - 1)
            stopping = EarlyStopping(patience=patience, tolerance=tolerance)
        elif stopping.exhausted:
            break
    if not stopping.kept:
        trainer.plain.load_state_dict(mean.module.state_dict())
        return trainer.evaluation_control()
    stopping.restore(trainer.plain)
    return stopping.control


def _average(model: nn.Module, *, steps: int) -> AveragedModel:
    """Return an exponential average that reaches back over so many steps; while it is younger, the mean of
    all of its own.
    """

    def averaged(mean: Tensor, latest: Tensor, taken: Tensor | int) -> Tensor:
        return torch.lerp(mean, latest, 1 / min(int(taken) + 1, max(1, steps)))

    return AveragedModel(model, avg_fn=averaged)


def _priced(trainer: Trainer) -> bool:
    """Whether reads cost what they are to cost in the end."""
    return not trainer.routes or trainer.controller.price >= trainer.controller.config.price_most
