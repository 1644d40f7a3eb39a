"""One neural method on one split: the trainer, controller and early stopping that serve everywhere, for
stacked mixers and encoders alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from torchcram.models.encoder import ENCODERS
from torchcram.models.sequence import SequenceModel, scored
from torchcram.series.activity import ActivityTask
from torchcram.series.comparison.problems import Problem
from torchcram.series.comparison.scores import Outcome, log_loss
from torchcram.series.side_heads import Lessons
from torchcram.series.task import SeriesTask
from torchcram.training.distributed import make_accelerator
from torchcram.training.evaluate import Tally
from torchcram.training.run_config import RunConfig
from torchcram.training.stopping import Judgement, learn
from torchcram.training.trainer import Trainer
from torchcram.training.training_progress import TrainingProgress
from torchcram.types import Batch, Head, RoutingControl

# Judgements of a whole training. None of them ends it: the best model is kept anyway, and learning rates must
# have their time to fall.
JUDGEMENTS = 20
# Share of the steps over which the weights are averaged that are judged and kept.
AVERAGED = 0.1
LESSONS = tuple(vars(Lessons()))


class Neural:
    """A model trained on the training part of a split, stopped by its validation part.

    Args:
        problem, number: what to learn, and which split of it.
        mixer: in the table of mixers or of encoders.
        parameters: ``hide``; weights of :class:`torchcram.series.side_heads.Lessons`; ``learning_rate,
            weight_decay``; ``d_model, layers``; ``price_most``; all others are the mixer's own options.
        seed: of weights and draws.
        limit: seconds, encoding of the data and training together.
    """

    def __init__(
        self,
        problem: Problem,
        number: int,
        mixer: str,
        parameters: Mapping[str, Any],
        *,
        seed: int,
        limit: float,
    ):
        begin = time.monotonic()
        self.problem, self.number = problem, number
        lessons = Lessons(**{name: parameters[name] for name in LESSONS if name in parameters})
        self.tasks = problem.tasks(
            number, encoder=mixer in ENCODERS, hide=float(parameters.get("hide", 0.0)), lessons=lessons
        )
        train = self.tasks["train"]
        options = (
            {"span": train.span if isinstance(train, SeriesTask) else float(train.steps)}
            if mixer == "mtand"
            else {}
        )
        self.config = run_config(
            problem,
            mixer,
            parameters,
            options,
            seed=seed,
            longest=train.longest if isinstance(train, SeriesTask) else train.steps,
        )
        trainer = Trainer(self.config, train, make_accelerator())
        held = problem.batches(self.tasks["validation"])
        every, self.attends = max(1, problem.steps // JUDGEMENTS), mixer not in ENCODERS
        with TrainingProgress(steps=problem.steps, show=False) as progress:
            self.control = learn(
                trainer,
                judge=lambda model, control: self._judgement(
                    judged(cast(SequenceModel, model), problem.head, held, control, attends=self.attends),
                    control,
                ),
                price=self.config.controller.price_most,
                every=every,
                patience=JUDGEMENTS + 1,
                progress=progress,
                average=round(AVERAGED * problem.steps),
                seconds=limit - (time.monotonic() - begin),
            )
        self.steps, self.model, self.routes = trainer.step, trainer.plain.eval(), trainer.routes

    def _judgement(self, outcome: Outcome, control: RoutingControl) -> Judgement:
        """Return what early stopping judges by: what may choose its reads, and makes more than it should,
        is as bad as can be.
        """
        share = outcome.attention_share or 0.0
        excessive = control.reads != "all" and share > self.problem.most_share
        return Judgement(loss=math.inf if excessive else log_loss(outcome), reads=share)

    @property
    def parameters(self) -> int:
        """Number of trained numbers of the model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def judge(self, part: str, *, control: RoutingControl | None = None) -> Outcome:
        """Return predictions for a part of the split; ``control`` says what may be read, None what
        training ended with.
        """
        task: SeriesTask | ActivityTask = self.tasks[part]
        return judged(
            self.model,
            self.problem.head,
            self.problem.batches(task),
            control or self.control,
            attends=self.attends,
        )


def run_config(
    problem: Problem,
    mixer: str,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    seed: int,
    longest: int,
) -> RunConfig:
    """Return the configuration of a training; half of its steps at most read everything."""
    training = {name: parameters[name] for name in ("learning_rate", "weight_decay")}
    shape = {name: parameters[name] for name in ("d_model", "layers") if name in parameters}
    price = {name: parameters[name] for name in ("price_most",) if name in parameters}
    own = {
        name: value
        for name, value in parameters.items()
        if name not in ("hide", *LESSONS, *training, *shape, *price)
    }
    return RunConfig.parse(
        {
            "name": mixer,
            "seed": seed,
            "task": {"kind": "custom", "name": "comparison", "length": longest},
            "model": {**shape, "mixer": mixer, "options": {**options, **own}},
            "controller": {
                "acquire_steps": problem.steps // 2,
                "shortest_acquisition": problem.steps // 8,
                "steady_price": True,
                **problem.controller,
                **price,
            },
            "training": {
                "steps": problem.steps,
                "tokens_per_step": problem.sequences * longest,
                "warmup_steps": min(50, problem.steps // 10),
                **training,
            },
        }
    )


@torch.no_grad()
def judged(
    model: SequenceModel, head: Head, batches: Sequence[Batch], control: RoutingControl, *, attends: bool
) -> Outcome:
    """Return what a model says about batches, and what it reads on the way; ``attends`` is False for what
    has no reads to count.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    tally, probability, truth, seconds = Tally(model), [], [], 0.0
    # Of one core, where that is what a job has: what else the machine does is not its fault.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for batch in (one.to(device) for one in batches):
        begin = clock()
        output = model(batch, control=control)
        seconds += clock() - begin
        keep = scored(head, batch)
        probability.append(output.outputs[head.name][keep].double().softmax(-1).cpu())
        truth.append(batch.targets[head.name][keep].cpu())
        if attends:
            tally.add(output, batch)
    model.train(training)
    return Outcome(
        probability=torch.cat(probability).numpy(),
        truth=torch.cat(truth).numpy().astype(np.int64),
        attention_share=tally.record()["attention_share"] if attends else None,
        per_second=sum(batch.size for batch in batches) / seconds,
    )
