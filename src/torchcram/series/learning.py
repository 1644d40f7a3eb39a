"""From labelled series to a fitted model: what is fitted, which rules lead it, when it stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from torchcram.models.encoder import ENCODERS
from torchcram.models.sequence import SequenceModel
from torchcram.series.arguments import SeriesArguments
from torchcram.series.duration import FitProgress
from torchcram.series.encoding import PanelEncoder
from torchcram.series.fitted import FittedSeries, held_out
from torchcram.series.panel import Panel
from torchcram.series.reading import ReadingTrainer
from torchcram.series.side_heads import Lessons
from torchcram.series.task import SeriesTask
from torchcram.training.distributed import make_accelerator
from torchcram.training.run_config import RunConfig
from torchcram.training.stopping import learn
from torchcram.types import Head

# Share of the most steps over which the weights are averaged that are judged and kept.
AVERAGED = 0.1
# Judgements of a whole training.
JUDGEMENTS = 40
# Options of a mixer that suit hundreds of series: smaller memories than those of the benchmark.
SMALL: dict[str, dict[str, Any]] = {
    "cram": {"state_size": 16, "slots": 64},
    "ssm": {"state_size": 16},
    "seqboat": {"state_size": 16},
}
ADVICE = "choose fewer members or max_steps, a smaller batch_size, d_model or layers, or thinner series"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Series and the target of each, as the head wants it."""

    panel: Panel
    target: Tensor

    def rows(self, chosen: Int[np.ndarray, " chosen"]) -> Labelled:
        """Return some of the series."""
        return Labelled(panel=self.panel.rows(chosen), target=self.target[torch.from_numpy(chosen)])


def fit_series(
    arguments: SeriesArguments, train: Labelled, held: Labelled | None, head: Head, *, seed: int, number: int
) -> FittedSeries:
    """Train a model.

    Args:
        arguments: of the estimator.
        train: what is learned from, and what statistics are fitted on.
        held: what early stopping judges by; None takes all steps.
        head: of the target.
        seed: of weights and draws.
        number: of the member that is trained; the first tells how long all may take.
    """
    carried = arguments.history and arguments.mixer not in ENCODERS
    fitted = FittedSeries(
        encoder=PanelEncoder.fit(train.panel.series, history=arguments.history, carried=carried),
        head=head,
        lessons=Lessons(forecast=arguments.forecast, replicate=arguments.replicate),
    )
    task = fitted.task(fitted.encoded(train.panel), train.target, hide=arguments.hide)
    judged = None if held is None else fitted.task(fitted.encoded(held.panel), held.target)
    fitted.config = run_config(arguments, task, seed=seed)
    trainer = ReadingTrainer(fitted.config, task, make_accelerator())
    steps, fits = arguments.max_steps, 0 if number else arguments.members
    with FitProgress(
        steps=steps, fits=fits, turns=trainer.turns, show=arguments.verbose, advice=ADVICE
    ) as progress:
        control = learn(
            trainer,
            judge=None
            if judged is None
            else lambda model, control: held_out(cast(SequenceModel, model), judged, control),
            every=max(1, arguments.max_steps // JUDGEMENTS),
            patience=arguments.patience,
            progress=progress,
            price=arguments.read_price,
            average=round(AVERAGED * arguments.max_steps),
        )
    fitted.control, fitted.steps = control, trainer.step
    fitted.keep(trainer.plain)
    return fitted


def run_config(arguments: SeriesArguments, task: SeriesTask, *, seed: int) -> RunConfig:
    """Return the configuration of a training; half of its steps at most read everything."""
    # mTAND's reference moments must be told over which time to spread.
    options = {"span": task.span or 1.0} if arguments.mixer == "mtand" else SMALL.get(arguments.mixer, {})
    steps, longest = arguments.max_steps, task.longest
    return RunConfig.parse(
        {
            "name": "series",
            "seed": seed,
            "task": {"kind": "custom", "name": "series", "length": longest},
            "model": {
                "d_model": arguments.d_model,
                "layers": arguments.layers,
                "mixer": arguments.mixer,
                "options": {**options, **(arguments.mixer_options or {})},
            },
            "controller": {
                "acquire_steps": steps // 2,
                "shortest_acquisition": min(100, steps // 4),
                "price_start": min(0.01, arguments.read_price),
                "price_most": arguments.read_price,
            },
            "training": {
                "steps": steps,
                "tokens_per_step": arguments.batch_size * longest,
                "learning_rate": arguments.learning_rate,
                "weight_decay": arguments.weight_decay,
                "warmup_steps": min(50, steps // 10),
            },
        }
    )
