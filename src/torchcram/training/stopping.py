"""Early stopping: training that ends, and decides what may be read, by what held-out data say.

    score = held-out loss + price * reads a step

Every model is judged, from the first step to the last, and the one with the least score is kept, whatever its
phase. Patience ends acquisition, from the best model so far: what has been learned by heart only is not
consolidated. A model that is best without any read is trained on without reads; else the router takes over,
and patience then ends training.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from torchcram.training.trainer import Trainer
from torchcram.training.training_progress import TrainingProgress
from torchcram.types import RoutingControl

# A score that falls by less, in units of the loss, is no reason to go on.
GAIN = 1e-3
# A routed model whose held-out loss is by such a share above the best one with all reads has lost quality.
LOST = 0.05


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What held-out data say of a model.

    Attributes:
        loss: at least 0.
        reads: of a step, summed over layers.
    """

    loss: float
    reads: float = 0.0


Judge = Callable[[nn.Module, RoutingControl], Judgement]


class EarlyStopping:
    """The best model so far, by held-out loss and by what its reads cost.

    Args:
        patience: judgements without a gain before training should stop; less than :data:`GAIN` is none.
        price: what a read at every step may cost, in units of the loss.
    """

    def __init__(self, *, patience: int, price: float = 0.0):
        self.patience, self.price = patience, price
        self.best, self.gained, self.waited = math.inf, math.inf, 0
        self.kept: dict[str, Tensor] = {}
        self.judgement, self.control = Judgement(loss=math.inf), RoutingControl(reads="all")

    def judge(self, model: nn.Module, judged: Sequence[tuple[RoutingControl, Judgement]]) -> None:
        """Take note of a model, judged under each control that it may be kept with."""
        for control, judgement in judged:
            score = judgement.loss + self.price * judgement.reads
            if score < self.best:
                self.best = score
                self.kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
                self.judgement, self.control = judgement, control
        gain = self.best < self.gained - GAIN
        self.waited = 0 if gain else self.waited + 1
        self.gained = self.best if gain else self.gained

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
    judge: Judge | None,
    every: int,
    patience: int,
    progress: TrainingProgress,
    price: float = 0.0,
    seconds: float = math.inf,
    average: int = 0,
) -> RoutingControl:
    """Train until the steps of the configuration are done or patience runs out; return what the model may
    read from now on. Warn if routing has cost quality.

    Args:
        trainer: at its first step.
        judge: what held-out data say of a model, the trainer's or an average of it, under a control; None
            trains all the steps and keeps the last model.
        every: steps between judgements.
        patience: judgements without a gain that end acquisition, and then training.
        progress: where training is shown.
        price: see :class:`EarlyStopping`.
        seconds: after which no further step is taken.
        average: steps over which the parameters are averaged that are judged and kept (Polyak and Juditsky
            1992); 0 or 1 for those of the last step. What is no parameter is always the latest.
    """
    mean, stopping = _average(trainer.plain, steps=average), EarlyStopping(patience=patience, price=price)
    total, end, dense = trainer.config.training.steps, time.monotonic() + seconds, math.inf
    while trainer.step < total and time.monotonic() < end:
        acquiring, controls = trainer.acquiring, trainer.evaluation_controls()
        record = trainer.train_step()
        mean.update_parameters(trainer.plain)
        progress.trained(trainer.step, record, record["phase"])
        if judge is None:
            continue
        acquired = acquiring and not trainer.acquiring
        if trainer.step % every == 0 or trainer.step == total or acquired:
            judged = [(control, judge(mean.module, control)) for control in controls]
            stopping.judge(mean.module, judged)
            dense = min([dense, *(one.loss for control, one in judged if control.reads == "all")])
        if acquiring and (acquired or stopping.exhausted):
            stopping.restore(trainer.plain)
            mean = _average(trainer.plain, steps=average)
            if not trainer.route(reads=stopping.control.reads != "none") and stopping.exhausted:
                break
            stopping.waited = 0
        elif stopping.exhausted:
            break
    if not stopping.kept:
        trainer.plain.load_state_dict(mean.module.state_dict())
        return trainer.evaluation_control()
    stopping.restore(trainer.plain)
    _tell_of_loss(stopping, dense)
    return stopping.control


def _tell_of_loss(stopping: EarlyStopping, dense: float) -> None:
    """Warn if the kept model is clearly worse than the best one with all reads."""
    loss = stopping.judgement.loss
    if stopping.control.reads == "routed" and loss > (1 + LOST) * dense:
        warnings.warn(
            f"routing cost quality: the held-out loss is {loss:.3g}, it was {dense:.3g} while every step "
            "read. A lower price of reads keeps more of them",
            stacklevel=4,
        )


def _average(model: nn.Module, *, steps: int) -> AveragedModel:
    """Return an exponential average that reaches back over so many steps; while it is younger, the mean of
    all of its own.
    """

    def averaged(mean: Tensor, latest: Tensor, taken: Tensor | int) -> Tensor:
        return torch.lerp(mean, latest, 1 / min(int(taken) + 1, max(1, steps)))

    return AveragedModel(model, avg_fn=averaged)
