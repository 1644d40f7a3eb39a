"""Classification and regression of irregular series with the conventions of scikit-learn, in five lines.

Needs the extra ``sklearn``. Series come in any form of :mod:`torchcram.series.panel`; statistics are fitted
on what is trained on. What is inside is the same model, trainer and controller as everywhere: see
``docs/irregular_series.md``. Pickles hold weights as safetensors bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from torchcram.series.base_estimator import SeriesEstimator
from torchcram.series.fitted import TARGET
from torchcram.series.learning import Labelled
from torchcram.series.panel import Panel, read_panel
from torchcram.series.targets import aligned, classes_of, codes_of, numbers_of
from torchcram.strict import optional
from torchcram.types import Head

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin, RegressorMixin
else:
    _base = optional("sklearn.base", extra="sklearn")
    ClassifierMixin, RegressorMixin = _base.ClassifierMixin, _base.RegressorMixin

class_weights, metrics = (
    optional(f"sklearn.{name}", extra="sklearn") for name in ("utils.class_weight", "metrics")
)


class CRAMClassifier(ClassifierMixin, SeriesEstimator):
    """Classify irregular series.

    Args:
        d_model, layers, mixer, mixer_options: the model: see
            :class:`torchcram.models.sequence.SequenceModel`. ``mixer`` may also be ``"grud"`` or ``"mtand"``.
        history: add running statistics of each channel, and carry values forward: see
            :mod:`torchcram.series.history`.
        hide: share of the channels that are hidden at each step of training, at random.
        forecast, replicate: weights of further heads, one that says what is observed at the next step, one
            that says the target at every step: see :mod:`torchcram.series.side_heads`. For sparse series with
            few labels; ``"mtand"`` sees the whole series, so it has nothing to forecast.
        read_price: what a read at every step may cost, in units of the loss: a lower one reads more. Of
            routed mixers alone.
        max_steps: most optimizer steps; at most half of them read everything.
        batch_size: series in a step; fewer where long ones would not fit.
        learning_rate, weight_decay: AdamW's.
        early_stopping: hold out ``validation_share`` of the series, stop after ``patience`` of the 40
            judgements without a gain, keep the best model.
        validation_share, patience: see there.
        members: models that are trained, each with series of its own held out, and whose mean predicts.
        class_weight: None, ``"balanced"``, or a weight for each class. Probabilities are multiplied by it
            after training: it moves the decision and costs no ranking quality.
        random_state: a number, a ``RandomState`` or None.
        verbose: show progress.

    Attributes:
        classes_: in the order of the columns of ``predict_proba``.
        class_weight_: of each of them.
        read_rate_: share of the steps that read the key-value memory in any layer, on the series held out
            (all of them if none was), mean over the members.
        n_iter_, channels_, n_features_in_: steps of all members; names and number of the channels.
        fitted_: the members: see :class:`torchcram.series.fitted.FittedSeries`.
    """

    def __init__(
        self,
        *,
        d_model: int = 32,
        layers: int = 1,
        mixer: str = "cram",
        mixer_options: dict[str, Any] | None = None,
        history: bool = True,
        hide: float = 0.1,
        forecast: float = 0.0,
        replicate: float = 0.0,
        read_price: float = 0.01,
        max_steps: int = 400,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.1,
        early_stopping: bool = True,
        validation_share: float = 0.15,
        patience: int = 8,
        members: int = 3,
        class_weight: str | dict[Any, float] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.d_model, self.layers, self.mixer, self.mixer_options = d_model, layers, mixer, mixer_options
        self.history, self.hide, self.forecast, self.replicate = history, hide, forecast, replicate
        self.read_price, self.max_steps, self.batch_size = read_price, max_steps, batch_size
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.early_stopping, self.validation_share = early_stopping, validation_share
        self.patience, self.members = patience, members
        self.class_weight, self.random_state, self.verbose = class_weight, random_state, verbose

    def fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        *,
        groups: Any = None,
        validation_data: Sequence[Any] | None = None,
    ) -> CRAMClassifier:
        """Learn from series and the class of each.

        Args:
            X: series, in any form of :mod:`torchcram.series.panel`.
            y: the class of each; a pandas Series beside a frame is looked up by the names of the series.
            groups: whom each series comes from, in any form of ``y``: early stopping holds out whole groups,
                so a model is judged on people whom it has not seen. Without early stopping they say nothing.
            validation_data: series and classes by which early stopping judges; None holds some of ``X`` out.
                Not together with ``groups``.

        Raises:
            ValueError: for series or classes that cannot be right; the message names the series, and the
                column. The estimator stays as it was.
        """
        panel = read_panel(X)
        label = classes_of(y, panel, X)
        classes, code = np.unique(label, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y has one class only, {classes[0]}: at least two are needed")
        weight = class_weights.compute_class_weight(self.class_weight, classes=classes, y=label)
        if not (np.isfinite(weight).all() and weight.min() >= 0 and weight.any()):
            raise ValueError(
                f"class_weight gives {weight.tolist()}: weights must be finite, at least 0, and not all 0"
            )
        held = None
        if given := self._judged(validation_data, groups, panel):
            judged, theirs, told = given
            known = codes_of(classes_of(told, judged, theirs), classes, judged)
            held = Labelled(panel=judged, target=torch.from_numpy(known))
        head = Head(name=TARGET, kind="classification", size=len(classes), per="sequence", pooled=True)
        labelled = Labelled(panel=panel, target=torch.from_numpy(code.astype(np.int64)))
        members = self._members(labelled, held, head, strata=code, groups=_groups(groups, panel, X))
        self.classes_, self.class_weight_ = classes, weight
        self._keep(members, panel)
        return self

    def predict_proba(self, X: Any) -> Float64[np.ndarray, "series classes"]:  # noqa: N803
        """Return the probability of each class, multiplied by the class's weight and normalised."""
        panel = self._read(X)
        chance = self._outputs(panel).softmax(-1).mean(0).numpy() * self.class_weight_
        return chance / chance.sum(-1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the most probable class of each series."""
        chosen = self.predict_proba(X).argmax(-1)
        return self.classes_[chosen]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Return the accuracy; ``y`` is looked up as :meth:`fit` does."""
        label = classes_of(y, self._panel(X), X)
        return float(metrics.accuracy_score(label, self.predict(X), sample_weight=sample_weight))


class CRAMRegressor(RegressorMixin, SeriesEstimator):
    """Regress one or several numbers on irregular series.

    Arguments and attributes: see :class:`CRAMClassifier`.
    """

    def __init__(
        self,
        *,
        d_model: int = 32,
        layers: int = 1,
        mixer: str = "cram",
        mixer_options: dict[str, Any] | None = None,
        history: bool = True,
        hide: float = 0.1,
        forecast: float = 0.0,
        replicate: float = 0.0,
        read_price: float = 0.01,
        max_steps: int = 400,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.1,
        early_stopping: bool = True,
        validation_share: float = 0.15,
        patience: int = 8,
        members: int = 3,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.d_model, self.layers, self.mixer, self.mixer_options = d_model, layers, mixer, mixer_options
        self.history, self.hide, self.forecast, self.replicate = history, hide, forecast, replicate
        self.read_price, self.max_steps, self.batch_size = read_price, max_steps, batch_size
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.early_stopping, self.validation_share = early_stopping, validation_share
        self.patience, self.members = patience, members
        self.random_state, self.verbose = random_state, verbose

    def fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        *,
        groups: Any = None,
        validation_data: Sequence[Any] | None = None,
    ) -> CRAMRegressor:
        """Learn from series and the number, or numbers, of each.

        Arguments and errors: see :meth:`CRAMClassifier.fit`.
        """
        panel = read_panel(X)
        target = numbers_of(y, panel, X)
        columns = target.reshape(len(target), -1)
        mean, spread = columns.mean(0), columns.std(0)
        std = np.where(spread <= 1e-12 * np.abs(mean), 1.0, spread)
        held = None
        if given := self._judged(validation_data, groups, panel):
            judged, theirs, told = given
            known = numbers_of(told, judged, theirs).reshape(len(judged.series), -1)
            if known.shape[1] != columns.shape[1]:
                raise ValueError(
                    f"validation_data has {known.shape[1]} numbers a series, y has {columns.shape[1]}"
                )
            held = Labelled(panel=judged, target=_standardised(known, mean, std))
        head = Head(name=TARGET, kind="regression", size=columns.shape[1], per="sequence", pooled=True)
        labelled = Labelled(panel=panel, target=_standardised(columns, mean, std))
        strata = np.zeros(len(target), dtype=np.int64)
        members = self._members(labelled, held, head, strata=strata, groups=_groups(groups, panel, X))
        self.single_, self.target_mean_, self.target_std_ = target.ndim == 1, mean, std
        self._keep(members, panel)
        return self

    def predict(self, X: Any) -> Float64[np.ndarray, "..."]:  # noqa: N803
        """Return the number, or numbers, of each series."""
        panel = self._read(X)
        numbers = self._outputs(panel).mean(0).numpy() * self.target_std_ + self.target_mean_
        return numbers[:, 0] if self.single_ else numbers

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Return R2; ``y`` is looked up as :meth:`fit` does."""
        target = numbers_of(y, self._panel(X), X)
        return float(metrics.r2_score(target, self.predict(X), sample_weight=sample_weight))


def _standardised(
    target: Float64[np.ndarray, "series numbers"],
    mean: Float64[np.ndarray, " numbers"],
    std: Float64[np.ndarray, " numbers"],
) -> Float[Tensor, "series numbers"]:
    return torch.from_numpy((target - mean) / std).float()


def _groups(groups: Any, panel: Panel, X: Any) -> np.ndarray | None:  # noqa: N803
    return None if groups is None else aligned(groups, panel, X, name="groups")
