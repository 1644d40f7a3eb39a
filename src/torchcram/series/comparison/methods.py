"""The methods compared, by the names that tables use: what of each is tuned, and how one is fitted.

All neural methods are offered the same width, learning rate and weight decay, and on sparse series the same
hiding of observations and weights of side heads; stacked ones the same depth, too, those with a working
memory the same sizes of its state, and routers the same prices of a read. Each method's first trial is the
middle of its space, the same for all neural ones; the sampler (TPE) chooses the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torchcram.series.comparison.boosting import Boosting
from torchcram.series.comparison.neural import LESSONS, Neural
from torchcram.series.comparison.problems import Problem
from torchcram.series.comparison.scores import Outcome


@runtime_checkable
class Fitted(Protocol):
    """A method fitted to the training part of a split."""

    def judge(self, part: str) -> Outcome:
        """Return predictions for ``"validation"`` or ``"test"``."""
        ...


@runtime_checkable
class Trial(Protocol):
    """What draws parameters: an optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number between two others."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Return a whole number between two others."""
        ...

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of the choices."""
        ...


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method.

    Attributes:
        title: for people.
        middle: parameters of the first trial, a price apart.
        draw: draws the parameters of a further trial.
        fixed: parameters that are not tuned.
        mixer: name of its mixer or encoder; None for trees.
        priced: whether it decides what to read, at a price.
    """

    title: str
    middle: dict[str, Any]
    draw: Callable[[Trial], dict[str, Any]]
    fixed: dict[str, Any]
    mixer: str | None = None
    priced: bool = False

    def starting(self, problem: Problem) -> dict[str, Any]:
        """Return the parameters of the first trial on a problem."""
        price = {"price_most": problem.prices[-2]} if self.priced else {}
        return {
            name: value
            for name, value in self.middle.items()
            if name not in ("hide", *LESSONS) or problem.sparse
        } | price

    def drawn(self, trial: Trial, problem: Problem) -> dict[str, Any]:
        """Return the parameters of a further trial on a problem."""
        drawn = self.draw(trial)
        if self.priced:
            drawn["price_most"] = trial.suggest_categorical("price_most", list(problem.prices))
        if problem.sparse and "hide" in self.middle:
            drawn["hide"] = trial.suggest_float("hide", 0.02, 0.4)
            drawn |= {name: trial.suggest_categorical(name, SIDE) for name in LESSONS if name in self.middle}
        return drawn

    def fit(
        self, problem: Problem, number: int, parameters: Mapping[str, Any], *, seed: int, limit: float
    ) -> Fitted:
        """Fit to the training part of a split, within ``limit`` seconds of training."""
        chosen = {**self.fixed, **parameters}
        if self.mixer is None:
            return Boosting(problem, number, chosen, seed=seed, limit=limit)
        return Neural(problem, number, self.mixer, chosen, seed=seed, limit=limit)


# Weights of a side head.
SIDE = [0.0, 1.0, 4.0]
MIDDLE = {"learning_rate": 1e-3, "weight_decay": 0.1, "d_model": 64, "hide": 0.1, "replicate": 1.0}
CAUSAL = {**MIDDLE, "forecast": 1.0}
STACKED = {**CAUSAL, "layers": 2}
RECURRENT = {**STACKED, "state_size": 8}


def _neural(trial: Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 6e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
        "d_model": trial.suggest_categorical("d_model", [16, 32, 64, 128]),
    }


def _stacked(trial: Trial) -> dict[str, Any]:
    return {**_neural(trial), "layers": trial.suggest_int("layers", 1, 2)}


def _recurrent(trial: Trial) -> dict[str, Any]:
    return {**_stacked(trial), "state_size": trial.suggest_categorical("state_size", [4, 8, 16, 64])}


def _trees(trial: Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 4, 32, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 0.1, 30.0, log=True),
        "max_features": trial.suggest_float("max_features", 0.1, 1.0),
    }


METHODS: dict[str, Method] = {
    "cram": Method(
        title="CRAM", mixer="cram", priced=True, middle=RECURRENT, draw=_recurrent, fixed={"slots": 64}
    ),
    "grud": Method(title="GRU-D", mixer="grud", middle=CAUSAL, draw=_neural, fixed={}),
    "transformer": Method(
        title="dense Transformer", mixer="transformer", middle=STACKED, draw=_stacked, fixed={}
    ),
    "ssm": Method(title="SSM alone", mixer="ssm", middle=RECURRENT, draw=_recurrent, fixed={}),
    "seqboat": Method(
        title="SeqBoat", mixer="seqboat", priced=True, middle=RECURRENT, draw=_recurrent, fixed={}
    ),
    "boosting": Method(
        title="gradient boosting",
        middle={"learning_rate": 0.05, "max_leaf_nodes": 12, "l2_regularization": 2.0, "max_features": 0.5},
        draw=_trees,
        fixed={"max_iter": 500},
    ),
    "mtand": Method(title="mTAND", mixer="mtand", middle={**MIDDLE, "restore": 1.0}, draw=_neural, fixed={}),
}
