"""One training run, from a configuration to its step: model, optimizer, controller, and what must be carried
along.

A step draws its batch and noise from a generator keyed by (seed, step), asks the controller what may be read,
takes one optimizer step, lets semantic memory take in what was read, and tells the controller how it went.
Nothing else carries randomness, so a resumed run equals an uninterrupted one, and several processes equal
one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from torchcram.memory.consolidation import ConsolidationController
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

# Logits that no predicted familiarity reaches.
NEVER_FAMILIAR = 1e3


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
        groups = [
            {**group, "lr": config.training.learning_rate * group["factor"]}
            for group in self.plain.parameter_groups(fast_factor=config.training.fast_factor)
        ]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=config.training.weight_decay)
        self.model, self.optimizer = accelerator.prepare(self.plain, optimizer)
        self.controller = ConsolidationController(config.controller)
        self.routes = self.plain.routed
        self.learns_routes = self.routes and "router" not in config.training.frozen
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

    def control(self) -> RoutingControl:
        """Return what the next step may read; mixers without a router read as they always do."""
        if self.learns_routes:
            return self.controller.control()
        return (
            RoutingControl(consolidate="semantic" not in self.config.training.frozen)
            if self.routes
            else RoutingControl(reads="all")
        )

    def evaluation_control(self) -> RoutingControl:
        """Return what an evaluation may read now."""
        if self.learns_routes:
            return self.controller.evaluation_control()
        return RoutingControl(reads="routed" if self.routes else "all")

    def evaluation_controls(self) -> tuple[RoutingControl, ...]:
        """Return under which controls early stopping may keep a model."""
        return (self.evaluation_control(),)

    @property
    def acquiring(self) -> bool:
        """Whether every token still reads, before the router decides."""
        return self.learns_routes and self.controller.phase == "acquire"

    def route(self, *, reads: bool) -> bool:
        """End acquisition, if it has not ended by itself; return whether there is more to learn."""
        assert reads
        if self.acquiring:
            self.controller.begin_routing(self.step - 1)
        return True

    def train_step(self) -> dict[str, Any]:
        """Take one optimizer step; return its losses and rates.

        Raises:
            FloatingPointError: if the loss or its gradient is not finite; the model is as it was before the
                step.
        """
        if self.step in dict(self.config.training.length_curriculum):
            self.controller.harder_from(self.step)
        control, factor = self.control(), learning_rate_factor(self.config, self.step)
        batch, noise = local_batch(
            self.config, self.task, self.accelerator, self.step, exploring=control.reads == "routed"
        )
        reference = (
            self._reference_loss(batch)
            if self.learns_routes and self.controller.wants_reference(self.step)
            else None
        )
        with self.autocast():
            output: ModelOutput = self.model(batch, control=control, noise=noise)
            losses = self.plain.task_losses(output.outputs, batch)
            task_loss = self._weighted(losses)
            loss = task_loss + self._side_losses(output, control, losses)
        averages = self._averages({**losses, "task_loss": task_loss, "loss": loss})
        self._descend(loss, factor)
        if "semantic" not in self.config.training.frozen:
            for block, block_output in zip(self.plain.blocks, output.blocks, strict=True):
                block.after_step(block_output)

        record = self.ledger.enter(output, batch) | familiarity_record(output, batch)
        record |= {"task_loss": averages["task_loss"], "losses": {name: averages[name] for name in losses}}
        if reference is not None:
            self.controller.observe_reference(reference, routed=averages["task_loss"])
        if self.routes:
            self.exposures.count(batch, output, routed=control.reads == "routed")
        if self.learns_routes:
            self.controller.observe(
                self.step, loss=record["task_loss"], read_rate=record["any_layer_read_rate"]
            )
        record |= {
            "phase": self.controller.phase if self.learns_routes else "train",
            "price": control.price or 0.0,
            "caution": control.threshold_shift,
        }
        record |= {"learning_rate": self.config.training.learning_rate * factor}
        self.step += 1
        return record

    def autocast(self) -> torch.autocast:
        """Return the precision of a training pass; evaluations are in the model's own."""
        return torch.autocast(
            self.accelerator.device.type,
            dtype=torch.bfloat16,
            enabled=self.config.training.precision == "bf16",
        )

    def _descend(self, loss: Tensor, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.training.learning_rate * group["factor"] * factor
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.training.clip)
        if norm is not None and not math.isfinite(float(norm)):
            self._stop("the gradient of the loss is not finite")
        self.optimizer.step()

    def _weighted(self, losses: dict[str, Tensor]) -> Tensor:
        weights = self.config.training.head_weights
        return torch.stack(
            [head.weight * weights.get(head.name, 1.0) * losses[head.name] for head in self.plain.specs]
        ).sum()

    def _side_losses(self, output: ModelOutput, control: RoutingControl, losses: dict[str, Tensor]) -> Tensor:
        """Add the blocks' own losses; each also goes, by name and summed over layers, into ``losses``."""
        weights = self.config.training.losses.model_dump() | {"price": control.price or 0.0}
        total = torch.zeros((), device=self.accelerator.device)
        for block in output.blocks:
            for name, value in block.losses.items():
                total = total + weights[name] * value
                losses[name] = losses.get(name, torch.zeros_like(value)) + value
        return total

    @torch.no_grad()
    def _reference_loss(self, batch: Batch) -> float:
        """Return the smaller task loss of two passes: all reads forced, and a read for every token in need.

        Their reads count as training cost.
        """
        self.model.eval()
        losses = {}
        for name, control in (
            ("all reads", RoutingControl(reads="all")),
            ("needed reads", RoutingControl(threshold_shift=NEVER_FAMILIAR)),
        ):
            with self.autocast():
                output = self.model(batch, control=control)
                losses[name] = self._weighted(self.plain.task_losses(output.outputs, batch))
            self.ledger.enter(output, batch, reference=True)
        self.model.train()
        return min(self._averages(losses).values())

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
            "controller": self.controller.state_dict(),
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
        self.controller.take_over(state["controller"])
        return float(state["seconds"])

    def start_from_run(self, folder: Path) -> None:
        """Begin with the weights of the finished run that the configuration names; its heads are left out.

        Raises:
            ValueError: if the folder is no finished run, or another one.
        """
        source = RunDir(folder)
        found = source.config(RunConfig).digest()
        source.read_json(SUMMARY)
        if found != self.config.start_from:
            raise ValueError(
                f"{folder} holds the run {found}, but start_from is {self.config.start_from!r}: "
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
        self.controller.load_state_dict(state["controller"])
        return float(state["seconds"])

    def _take(self, state: dict[str, Any]) -> None:
        self.step, self.ledger.counts = state["step"], state["counts"]
        self.exposures.load_state_dict(state["exposures"])
        self.saved_step = self.step
