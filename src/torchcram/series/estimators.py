"""Classification and regression of irregular series with the conventions of scikit-learn, in five lines.

Needs the extra ``sklearn``. Series come in any form of :mod:`torchcram.series.panel`; statistics are fitted
on what is trained on. What is inside is the same model, trainer and controller as everywhere: see
``docs/irregular_series.md``. Pickles hold weights as safetensors bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor
from torch.nn.functional import cross_entropy

from torchcram.accounting import any_layer
from torchcram.models.encoder import ENCODERS
from torchcram.models.sequence import SequenceModel
from torchcram.series.history import encode_carried, with_running_statistics
from torchcram.series.panel import Panel, read_panel
from torchcram.series.side_heads import Lessons
from torchcram.series.task import EncodedSeries, Series, SeriesStatistics, SeriesTask, collate
from torchcram.strict import optional
from torchcram.training.distributed import make_accelerator
from torchcram.training.run_config import RunConfig
from torchcram.training.stopping import learn
from torchcram.training.trainer import Trainer, build_model
from torchcram.training.training_progress import TrainingProgress
from torchcram.types import Head, RoutingControl

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
else:
    _base = optional("sklearn.base", extra="sklearn")
    BaseEstimator, ClassifierMixin, RegressorMixin = (
        _base.BaseEstimator,
        _base.ClassifierMixin,
        _base.RegressorMixin,
    )

validation, class_weights = (
    optional(f"sklearn.utils.{name}", extra="sklearn") for name in ("validation", "class_weight")
)

TARGET = "target"
# Steps of a batch, padding included: bounds the memory that long series take.
MOST_TOKENS = 65_536
# Series whose typical gap differs from that of training by such a factor have another unit of time.
OTHER_UNIT = 1000.0
# Share of the most steps over which the weights are averaged that are judged and kept.
AVERAGED = 0.1


@dataclass(frozen=True, kw_only=True)
class RouteMap:
    """Which memory answered each step of one series.

    Attributes:
        time: of each step, in the series' own unit.
        routes: :class:`torchcram.types.Route` of each step, in each layer.
        read: whether the step read in any layer.
    """

    time: Float64[np.ndarray, " steps"]
    routes: Int[np.ndarray, "layers steps"]
    read: np.ndarray


class _SeriesEstimator(BaseEstimator):
    """What both estimators share: reading, encoding, training and running over series."""

    def _fit(
        self, panel: Panel, target: Tensor, weights: Tensor, strata: Int[np.ndarray, " series"], head: Head
    ) -> None:
        if self.forecast and self.mixer == "mtand":
            raise ValueError(
                "forecast: mixer 'mtand' sees the whole series, what comes next included: set forecast=0.0"
            )
        generator = validation.check_random_state(self.random_state)
        train, held = self._divided(strata, generator)
        self.channels_, self.n_features_in_ = panel.channels, len(panel.channels)
        self.statistics_ = SeriesStatistics.fit([self._extended(panel.series[row]) for row in train])
        encoded = self._encoded(panel)
        self.head_ = head
        task, judged = (
            self._task([encoded[row] for row in rows], target[rows], weights[rows]) if rows else None
            for rows in (train, held)
        )
        assert task is not None
        self.config_ = self._config(task, seed=int(generator.randint(2**31 - 1)))
        trainer = Trainer(self.config_, task, make_accelerator())
        judge = (
            None
            if judged is None
            else lambda model, control: _held_out_loss(cast(SequenceModel, model), judged, control)
        )
        with TrainingProgress(steps=self.max_steps, show=self.verbose) as progress:
            every, average = max(1, self.max_steps // 40), round(AVERAGED * self.max_steps)
            self.control_ = learn(
                trainer, judge=judge, every=every, patience=self.patience, progress=progress, average=average
            )
        self.n_iter_, self.model_ = trainer.step, trainer.plain.to("cpu").eval()
        maps = self._maps([encoded[i] for i in (held if len(held) else train)])
        self.read_rate_ = float(np.concatenate([read for _, read in maps]).mean())

    def _task(self, series: Sequence[EncodedSeries], target: Tensor, weights: Tensor) -> SeriesTask:
        lessons = Lessons(forecast=self.forecast, replicate=self.replicate)
        size, flags = self.n_features_in_, not self._carries
        return SeriesTask(
            series,
            {TARGET: target},
            (self.head_,),
            weights=weights,
            lessons=lessons,
            variables=size,
            flags=flags,
        )

    def _config(self, task: SeriesTask, *, seed: int) -> RunConfig:
        longest = task.longest
        sequences = max(1, min(self.batch_size, MOST_TOKENS // longest))
        # Its reference moments must be told over which time to spread.
        options = {"span": task.span or 1.0} if self.mixer == "mtand" else {}
        price = {"price_start": min(0.01, self.read_price), "price_most": self.read_price}
        acquire = {
            "acquire_steps": self.max_steps // 2,
            "shortest_acquisition": min(100, self.max_steps // 4),
            **price,
        }
        training = {
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "warmup_steps": min(50, self.max_steps // 10),
        }
        return RunConfig.parse(
            {
                "name": type(self).__name__,
                "seed": seed,
                "task": {"kind": "custom", "name": "series", "length": longest},
                "model": {
                    "d_model": self.d_model,
                    "layers": self.layers,
                    "mixer": self.mixer,
                    "options": {**options, **(self.mixer_options or {})},
                },
                "controller": acquire,
                "training": {"steps": self.max_steps, "tokens_per_step": sequences * longest, **training},
            }
        )

    def _divided(
        self, strata: Int[np.ndarray, " series"], generator: np.random.RandomState
    ) -> tuple[list[int], list[int]]:
        """Return the series to train on, and those held out for early stopping: a share of each stratum,
        never all of it.
        """
        held: list[int] = []
        for kind in np.unique(strata) if self.early_stopping else ():
            rows = generator.permutation(np.flatnonzero(strata == kind))
            held += rows[: min(round(self.validation_share * len(rows)), len(rows) - 1)].tolist()
        if self.early_stopping and not held:
            warnings.warn(
                f"{len(strata)} series are too few to hold any out: early_stopping is ignored", stacklevel=4
            )
        return sorted(set(range(len(strata))) - set(held)), sorted(held)

    def _encoded(self, panel: Panel) -> list[EncodedSeries]:
        for name, series in zip(panel.names, panel.series, strict=True):
            ratio = (
                float(np.median(np.diff(series.time))) / self.statistics_.unit
                if len(series.time) > 1
                else 1.0
            )
            if not 1 / OTHER_UNIT <= ratio <= OTHER_UNIT:
                text = (
                    f"series {name!r}, column 'time': its gaps are {ratio:.2g} times those of "
                    "training: are its time stamps in another unit?"
                )
                warnings.warn(text, stacklevel=4)
        return [self._encode(series) for series in panel.series]

    @property
    def _carries(self) -> bool:
        """Whether values are carried forward: encoders of whole series impute for themselves."""
        return self.history and self.mixer not in ENCODERS

    def _extended(self, series: Series) -> Series:
        return with_running_statistics(series) if self.history else series

    def _encode(self, series: Series) -> EncodedSeries:
        if self._carries:
            return encode_carried(self.statistics_, self._extended(series), variables=series.values.shape[1])
        return self.statistics_.encode(self._extended(series))

    def _read(self, X: Any) -> Panel:  # noqa: N803
        validation.check_is_fitted(self)
        return read_panel(X, channels=self.channels_)

    @torch.no_grad()
    def _outputs(self, X: Any) -> Tensor:  # noqa: N803
        """Return the head's output for each series."""
        encoded = self._encoded(self._read(X))
        outputs = torch.empty(len(encoded), self.head_.size)
        for rows in _batches(encoded):
            outputs[rows] = self.model_(
                collate([encoded[row] for row in rows]), control=self.control_
            ).outputs[TARGET]
        return outputs

    def explain(self, X: Any) -> list[RouteMap]:  # noqa: N803
        """Return the route map of each series. A series without observations has none: its map is empty."""
        panel = self._read(X)
        maps = self._maps(self._encoded(panel))
        cut = [
            (series.time, routes[:, : len(series.time)], read[: len(series.time)])
            for series, (routes, read) in zip(panel.series, maps, strict=True)
        ]
        return [RouteMap(time=time, routes=routes, read=read) for time, routes, read in cut]

    @torch.no_grad()
    def _maps(self, encoded: Sequence[EncodedSeries]) -> list[tuple[np.ndarray, np.ndarray]]:
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for rows in _batches(encoded):
            blocks = self.model_(collate([encoded[row] for row in rows]), control=self.control_).blocks
            decisions = [block.decision for block in blocks if block.decision is not None]
            routes, read = (
                torch.stack([decision.route for decision in decisions], 1).numpy(),
                any_layer(decisions).numpy(),
            )
            found |= {
                row: (routes[i, :, : len(encoded[row].gap)], read[i, : len(encoded[row].gap)])
                for i, row in enumerate(rows)
            }
        return [found[row] for row in range(len(encoded))]

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            state["model_"] = save_bytes(
                {name: value.contiguous() for name, value in state["model_"].state_dict().items()}
            )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state.get("model_")
        super().__setstate__({name: value for name, value in state.items() if name != "model_"})
        if weights is not None:
            self.model_ = self._untrained()
            self.model_.load_state_dict(load_bytes(weights))

    def _untrained(self) -> SequenceModel:
        nothing = Series(time=np.empty(0), values=np.empty((0, self.n_features_in_)))
        return build_model(
            self.config_, self._task([self._encode(nothing)], torch.zeros(1), torch.ones(1))
        ).eval()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array, tags.input_tags.allow_nan = True, True
        return tags


class CRAMClassifier(ClassifierMixin, _SeriesEstimator):
    """Classify irregular series.

    Args:
        d_model, layers, mixer, mixer_options: the model: see
            :class:`torchcram.models.sequence.SequenceModel`. ``mixer`` may also be ``"grud"`` or ``"mtand"``.
        history: add running statistics of each channel, and carry values forward: see
            :mod:`torchcram.series.history`. For channels that are rarely observed.
        forecast, replicate: weights of further heads, one that says what is observed at the next step, one
            that says the target at every step: see :mod:`torchcram.series.side_heads`. For sparse series with
            few labels; ``"mtand"`` sees the whole series, so it has nothing to forecast.
        read_price: most that a read may cost, in units of the loss (``controller.price_most``): a lower one
            reads more. Of routed mixers alone.
        max_steps: most optimizer steps; at most half of them read everything.
        batch_size: series in a step.
        learning_rate, weight_decay: AdamW's.
        early_stopping: hold out ``validation_share`` of the series, stop after ``patience`` of the 40
            judgements without a gain, keep the best model.
        validation_share, patience: see there.
        class_weight: None, ``"balanced"``, or a weight for each class: how often its series are drawn,
            relative to others.
        random_state: a number, a ``RandomState`` or None.
        verbose: show progress.

    Attributes:
        classes_: in the order of the columns of ``predict_proba``.
        read_rate_: share of the steps that read the key-value memory in any layer, on the series held out
            (all of them if none was).
        n_iter_, channels_, n_features_in_: steps taken; names and number of the channels.
    """

    def __init__(
        self,
        *,
        d_model: int = 32,
        layers: int = 2,
        mixer: str = "cram",
        mixer_options: dict[str, Any] | None = None,
        history: bool = False,
        forecast: float = 0.0,
        replicate: float = 0.0,
        read_price: float = 0.3,
        max_steps: int = 400,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        early_stopping: bool = True,
        validation_share: float = 0.15,
        patience: int = 8,
        class_weight: str | dict[Any, float] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.d_model, self.layers, self.mixer, self.mixer_options = d_model, layers, mixer, mixer_options
        self.history, self.forecast, self.replicate, self.read_price = (
            history,
            forecast,
            replicate,
            read_price,
        )
        self.max_steps, self.batch_size, self.learning_rate, self.weight_decay = (
            max_steps,
            batch_size,
            learning_rate,
            weight_decay,
        )
        self.early_stopping, self.validation_share, self.patience = early_stopping, validation_share, patience
        self.class_weight, self.random_state, self.verbose = class_weight, random_state, verbose

    def fit(self, X: Any, y: Any) -> CRAMClassifier:  # noqa: N803
        """Learn from series and the class of each.

        Raises:
            ValueError: for series or classes that cannot be right; the message names the series, and the
                column.
        """
        panel = read_panel(X)
        label = _aligned(y, panel, X)
        if label.ndim != 1:
            raise ValueError(f"y has shape {label.shape}: one class a series is needed")
        self.classes_, code = np.unique(label, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]}: at least two are needed")
        weight = class_weights.compute_class_weight(self.class_weight, classes=self.classes_, y=label)
        head = Head(name=TARGET, kind="classification", size=len(self.classes_), per="sequence")
        self._fit(
            panel, torch.from_numpy(code.astype(np.int64)), torch.from_numpy(weight[code]).float(), code, head
        )
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "series classes"]:  # noqa: N803
        """Return the probability of each class."""
        return self._outputs(X).double().softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the most probable class of each series."""
        chosen = self._outputs(X).argmax(-1).numpy()
        return self.classes_[chosen]


class CRAMRegressor(RegressorMixin, _SeriesEstimator):
    """Regress one or several numbers on irregular series.

    Arguments and attributes: see :class:`CRAMClassifier`.
    """

    def __init__(
        self,
        *,
        d_model: int = 32,
        layers: int = 2,
        mixer: str = "cram",
        mixer_options: dict[str, Any] | None = None,
        history: bool = False,
        forecast: float = 0.0,
        replicate: float = 0.0,
        read_price: float = 0.3,
        max_steps: int = 400,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        early_stopping: bool = True,
        validation_share: float = 0.15,
        patience: int = 8,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.d_model, self.layers, self.mixer, self.mixer_options = d_model, layers, mixer, mixer_options
        self.history, self.forecast, self.replicate, self.read_price = (
            history,
            forecast,
            replicate,
            read_price,
        )
        self.max_steps, self.batch_size, self.learning_rate, self.weight_decay = (
            max_steps,
            batch_size,
            learning_rate,
            weight_decay,
        )
        self.early_stopping, self.validation_share, self.patience = early_stopping, validation_share, patience
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: Any) -> CRAMRegressor:  # noqa: N803
        """Learn from series and the number, or numbers, of each.

        Raises:
            ValueError: for series or targets that cannot be right; the message names the series, and the
                column.
        """
        panel = read_panel(X)
        target = _aligned(y, panel, X).astype(np.float64)
        self.single_ = target.ndim == 1
        target = target.reshape(len(target), -1)
        self.target_mean_, spread = target.mean(0), target.std(0)
        self.target_std_ = np.where(spread <= 1e-12 * np.abs(self.target_mean_), 1.0, spread)
        head = Head(name=TARGET, kind="regression", size=target.shape[1], per="sequence")
        standardised = torch.from_numpy((target - self.target_mean_) / self.target_std_).float()
        self._fit(panel, standardised, torch.ones(len(target)), np.zeros(len(target), dtype=np.int64), head)
        return self

    def predict(self, X: Any) -> Float64[np.ndarray, "..."]:  # noqa: N803
        """Return the number, or numbers, of each series."""
        found = self._outputs(X).double().numpy() * self.target_std_ + self.target_mean_
        return found[:, 0] if self.single_ else found


def _aligned(y: Any, panel: Panel, X: Any) -> np.ndarray:  # noqa: N803
    """Return one target a series, in the order of the series; a pandas Series beside a frame is looked up
    by name.
    """
    if hasattr(X, "columns") and hasattr(y, "index") and hasattr(y, "loc"):
        absent = [name for name in panel.names if name not in y.index]
        if absent:
            raise ValueError(
                f"series {absent[0]!r} has no entry in y, which is looked up by the names of the series"
            )
        y = y.loc[list(panel.names)]
    found = np.asarray(y)
    if len(found) != len(panel.series):
        raise ValueError(f"y has {len(found)} entries for {len(panel.series)} series")
    for row in np.argwhere(~np.isfinite(found))[:1] if found.dtype.kind == "f" else ():
        raise ValueError(
            f"series {panel.names[row[0]]!r}, column 'y': is {found[tuple(row)]}; targets must be finite"
        )
    return found


def _batches(encoded: Sequence[EncodedSeries]) -> list[list[int]]:
    """Return rows of about equal length together, so that little is padded, and never too much at once."""
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row].gap))
    batches: list[list[int]] = [[]]
    for row in order:
        steps = len(encoded[row].gap)
        if batches[-1] and (
            (len(batches[-1]) + 1) * steps > MOST_TOKENS or steps > 2 * len(encoded[batches[-1][0]].gap) + 64
        ):
            batches.append([])
        batches[-1].append(row)
    return batches


@torch.no_grad()
def _held_out_loss(model: SequenceModel, task: SeriesTask, control: RoutingControl) -> float:
    """Return the mean loss of held-out series, weighted as they are drawn in training."""
    training, device, total = model.training, next(model.parameters()).device, 0.0
    model.eval()
    for rows in _batches(task.series):
        batch = task.rows(rows).to(device)
        output, target = model(batch, control=control).outputs[TARGET], batch.targets[TARGET]
        classes = not target.is_floating_point()
        loss = (
            cross_entropy(output, target, reduction="none")
            if classes
            else (output - target).square().mean(-1)
        )
        total += float((loss.cpu() * task.weights[rows]).sum())
    model.train(training)
    return total / float(task.weights.sum())
