"""One training run, from a configuration to its step: model, optimizer, controller, and what must be carried
along.

A step draws its batch and noise from a generator keyed by (seed, step), asks the controller what may be read,
takes one optimizer step, lets semantic memory take in what was read, and tells the controller how it went.
Nothing else carries randomness, so a resumed run equals an uninterrupted one, and several processes equal
one.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from torchcram.memory.consolidator import Consolidator, named_losses, parameter_groups
from torchcram.models.sequence import ModelOutput
from torchcram.ops.collective import world_sum
from torchcram.runs.run_dir import CHECKPOINT, MODEL, SUMMARY, RunDir
from torchcram.strict import require_choice
from torchcram.tasks.base import Task, check_members
from torchcram.training.acquisition import acquisition_of
from torchcram.training.build import build_model
from torchcram.training.checkpoint import load_body, load_checkpoint, save_checkpoint
from torchcram.training.distributed import local_batch, sequences_at
from torchcram.training.exposures import ExposureCounter
from torchcram.training.frozen import HEADS, freeze
from torchcram.training.ledger import Ledger, familiarity_record
from torchcram.training.run_config import RunConfig
from torchcram.types import Batch, RoutingControl


def learning_rate_factor(config: RunConfig, step: int) -> float:
    """Return the learning rate at a step over its peak: linear warm-up, constant, then half a cosine down
    to ``final_share``.
    """
    rules = config.training
    warm = min(1.0, (step + 1) / max(1, rules.warmup_steps))
    tail = max(1.0, rules.decay_share * rules.steps)
    done = min(max((step - (rules.steps - tail)) / tail, 0.0), 1.0) if rules.decay_share > 0 else 0.0
    return warm * (rules.final_share + (1 - rules.final_share) * 0.5 * (1 + math.cos(math.pi * done)))


class Trainer:
    """Everything that a run carries from step to step.

    Args:
        config: the run.
        task: where batches come from.
        accelerator: where it runs.

    Raises:
        ValueError: for what only the model, the task's first batch or the number of processes can tell to be
            impossible.
    """

    def __init__(self, config: RunConfig, task: Task, accelerator: Accelerator):
        self.config, self.task, self.accelerator = config, task, accelerator
        self.plain = build_model(config, task)
        freeze(self.plain, config.training.frozen)
        rules = config.training
        groups = parameter_groups(self.plain, rules.learning_rate, fast_factor=rules.fast_factor)
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=rules.weight_decay)
        self.model, self.optimizer = accelerator.prepare(self.plain, optimizer)
        self.consolidator = self._consolidator() if self.plain.routed else None
        self.ledger = Ledger(self.plain)
        self.exposures = ExposureCounter(task)
        self.step, self.saved_step = 0, 0
        self._rehearse()

    def _rehearse(self) -> None:
        """Find out what cannot work before anything is written: the batches' sizes, the first batch, the
        names of the heads.
        """
        for step in (0, *(start for start, _ in self.config.training.length_curriculum)):
            sequences_at(self.config, step, processes=self.accelerator.num_processes)
        for name in self.config.training.head_weights:
            require_choice("head in training.head_weights", name, [head.name for head in self.task.heads])
        batch, _ = local_batch(self.config, self.task, self.accelerator, 0, exploring=False)
        self.plain.check(batch)
        check_members(self.task, batch.to("cpu"))

    def _consolidator(self) -> Consolidator:
        """Return who leads the model; each batch brings the noise of its step."""
        rules = self.config.training
        return Consolidator(
            self.plain,
            self.config.controller,
            generator=None,
            weights=rules.losses,
            routers="router" not in rules.frozen,
            semantic="semantic" not in rules.frozen,
        )

    @property
    def routes(self) -> bool:
        """Whether any layer has a router."""
        return self.consolidator is not None

    @property
    def learns_routes(self) -> bool:
        """Whether routers learn, so that training goes through the phases."""
        return self.consolidator is not None and self.consolidator.routers

    @property
    def phase(self) -> str:
        """Where the model stands: a phase of the consolidator, or ``"train"`` where there are none."""
        return self.consolidator.phase if self.consolidator and self.consolidator.routers else "train"

    @property
    def acquired_at(self) -> int | None:
        """The step at which routing began, or None."""
        return None if self.consolidator is None else self.consolidator.phases.acquired_at

    def control(self) -> RoutingControl:
        """Return what the next step may read; mixers without a router read as they always do."""
        return RoutingControl(reads="all") if self.consolidator is None else self.consolidator.control()

    def evaluation_control(self) -> RoutingControl:
        """Return what an evaluation may read now."""
        if self.consolidator is None:
            return RoutingControl(reads="all")
        return self.consolidator.evaluation_control()

    def evaluation_controls(self) -> tuple[RoutingControl, ...]:
        """Return under which controls early stopping may keep a model."""
        return (self.evaluation_control(),)

    @property
    def acquiring(self) -> bool:
        """Whether every token still reads, before the router decides."""
        return self.phase == "acquire"

    def route(self, *, reads: bool) -> bool:
        """End acquisition, if it has not ended by itself; return whether there is more to learn."""
        assert reads
        if self.acquiring and self.consolidator is not None:
            self.consolidator.begin_routing()
        return True

    def train_step(self) -> dict[str, Any]:
        """Take one optimizer step; return its losses and rates.

        Raises:
            FloatingPointError: if the loss or its gradient is not finite; the model is as it was before the
                step.
        """
        leader = self.consolidator
        if leader is not None and self.step in dict(self.config.training.length_curriculum):
            leader.harder()
        control, factor = self.control(), learning_rate_factor(self.config, self.step)
        price = 0.0 if leader is None else leader.price
        batch, noise = local_batch(
            self.config, self.task, self.accelerator, self.step, exploring=control.reads == "routed"
        )
        with self.autocast():
            output: ModelOutput = self.model(batch, control=control, noise=noise)
            losses = self.plain.task_losses(output.outputs, batch)
            task_loss = self._weighted(losses)
            losses |= named_losses(output.blocks)
            loss = task_loss if leader is None else leader.loss(task_loss, output.blocks)
        averages = self._averages({**losses, "task_loss": task_loss, "loss": loss})
        self._backward(loss, factor)

        record = self.ledger.enter(output, batch) | familiarity_record(output, batch)
        if leader is not None:
            rate = record["any_layer_read_rate"]
            rerun = partial(self._loss_under, batch)
            leader.step(output.blocks, averages["task_loss"], rerun=rerun, read_rate=rate)
            self.exposures.count(batch, output, routed=control.reads == "routed")
        self.optimizer.step()
        self.step += 1
        return record | {
            "task_loss": averages["task_loss"],
            "losses": {name: averages[name] for name in losses},
            "phase": self.phase,
            "price": price,
            "caution": control.threshold_shift,
            "learning_rate": self.config.training.learning_rate * factor,
        }

    def autocast(self) -> torch.autocast:
        """Return the precision of a training pass; evaluations are in the model's own."""
        return torch.autocast(
            self.accelerator.device.type,
            dtype=torch.bfloat16,
            enabled=self.config.training.precision == "bf16",
        )

    def _backward(self, loss: Tensor, factor: float) -> None:
        """Compute the gradients, clipped; the model is not changed."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.training.learning_rate * group["factor"] * factor
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.training.clip)
        if norm is not None and not math.isfinite(float(norm)):
            self._stop("the gradient of the loss is not finite")

    def _weighted(self, losses: dict[str, Tensor]) -> Tensor:
        weights = self.config.training.head_weights
        return torch.stack(
            [head.weight * weights.get(head.name, 1.0) * losses[head.name] for head in self.plain.specs]
        ).sum()

    def _loss_under(self, batch: Batch, control: RoutingControl) -> Tensor:
        """Return the task loss of a batch under a control. What is read for it counts as training cost."""
        with self.autocast():
            output: ModelOutput = self.model(batch, control=control)
            loss = self._weighted(self.plain.task_losses(output.outputs, batch))
        self.ledger.enter(output, batch, reference=True)
        if not bool(loss.isfinite()):
            self._stop("the reference loss is not finite")
        return loss

    def _averages(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Return the losses averaged over the processes; they must be finite."""
        total = world_sum(torch.stack([value.detach().double() for value in losses.values()]))
        averages = dict(zip(losses, (total / self.accelerator.num_processes).tolist(), strict=True))
        bad = [name for name, value in averages.items() if not math.isfinite(value)]
        if bad:
            self._stop(f"the loss is not finite ({bad[0]} is {averages[bad[0]]})")
        return averages

    def _stop(self, reason: str) -> None:
        kept = (
            f"the checkpoint after {self.saved_step} steps is kept"
            if self.saved_step
            else "there is no checkpoint yet"
        )
        raise FloatingPointError(
            f"training stopped at step {self.step}: {reason}; {kept}. Try a smaller training.learning_rate"
        )

    def save(self, run: RunDir, *, seconds: float) -> None:
        """Write a checkpoint; all processes must call it."""
        state = {
            "step": self.step,
            "seconds": seconds,
            "config_hash": self.config.digest(),
            "metrics": run.metrics_mark(),
            "counts": self.ledger.counts,
            "consolidator": None if self.consolidator is None else self.consolidator.state_dict(),
            "exposures": self.exposures.state_dict(),
        }
        save_checkpoint(run.path / CHECKPOINT, self.model, self.optimizer, state, write=run.writes)
        self.saved_step = self.step

    def start_from(self, acquisition: Path, run: RunDir) -> float:
        """Begin a run where a shared acquisition ended, with its metrics; return the seconds that it had
        taken.

        Raises:
            ValueError: if checkpoint or metrics are damaged, or of an acquisition that this run does not
                share.
        """
        shared = acquisition_of(self.config)
        state = load_checkpoint(
            acquisition / CHECKPOINT,
            self.model,
            self.optimizer,
            expected={"config_hash": shared and shared.digest()},
        )
        run.restore_metrics(state["metrics"], source=RunDir(acquisition))
        self._take(state)
        if self.consolidator is not None:
            self.consolidator.take_over(state["consolidator"])
        return float(state["seconds"])

    def start_from_run(self, folder: Path) -> None:
        """Begin with the weights of the finished run that the configuration names; its heads are left out.

        Raises:
            ValueError: if the folder is no finished run, or another one.
        """
        source = RunDir(folder)
        digest = source.config(RunConfig).digest()
        source.load_json(SUMMARY)
        if digest != self.config.start_from:
            raise ValueError(
                f"{folder} holds the run {digest}, but start_from is {self.config.start_from!r}: "
                "pass the folder of that run"
            )
        load_body(folder / MODEL, self.plain, fresh=HEADS)

    def load(self, run: RunDir) -> float:
        """Continue from the run's checkpoint, with the metrics up to it; return the seconds that it had
        taken.

        Raises:
            ValueError: if checkpoint or metrics are damaged, another model's or another configuration's.
        """
        expected = {"config_hash": self.config.digest()}
        state = load_checkpoint(run.path / CHECKPOINT, self.model, self.optimizer, expected=expected)
        run.restore_metrics(state["metrics"])
        self._take(state)
        if self.consolidator is not None:
            self.consolidator.load_state_dict(state["consolidator"])
        return float(state["seconds"])

    def _take(self, state: dict[str, Any]) -> None:
        self.step, self.ledger.counts = state["step"], state["counts"]
        self.exposures.load_state_dict(state["exposures"])
        self.saved_step = self.step
