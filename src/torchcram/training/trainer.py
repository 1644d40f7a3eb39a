"""One training run, from a configuration to its step: model, optimizer, controller, and what must be carried along.

A step draws its batch and noise from a generator keyed by (seed, step), asks the controller what may be read, takes one optimizer step, lets semantic
memory take in what was read, and tells the controller how it went. Nothing else carries randomness, so a resumed run equals an
uninterrupted one, and several processes equal one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from torchcram.accounting import any_layer, dense_keys, keys_scanned
from torchcram.memory.consolidation import ConsolidationController
from torchcram.models.sequence import ModelOutput, SequenceModel
from torchcram.ops.collective import world_sum
from torchcram.tasks.base import Task
from torchcram.tasks.srcd import SRCD, SRCDConfig
from torchcram.training.checkpoint import load_checkpoint, save_checkpoint
from torchcram.training.distributed import local_batch
from torchcram.training.exposures import ExposureCounter
from torchcram.training.run_config import CustomTaskConfig, RunConfig
from torchcram.training.run_dir import CHECKPOINT, RunDir
from torchcram.types import Batch, RoutingControl


def build_task(config: RunConfig, task: Task | None = None) -> Task:
    """Return the task of a run.

    Raises:
        ValueError: if a custom task is not given as an object, or one is given beside a built-in one.
    """
    if isinstance(config.task, CustomTaskConfig):
        if task is None:
            raise ValueError(f"the run learns the custom task {config.task.name!r}: pass the task object, train(config, task=...)")
        return task
    assert isinstance(config.task, SRCDConfig)
    return SRCD(config.task) if task is None else task


def build_model(config: RunConfig, task: Task) -> SequenceModel:
    """Return the untrained model of a run, with weights drawn from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = SequenceModel(
            task.heads,
            input_size=task.input_size,
            d_model=config.model.d_model,
            layers=config.model.layers,
            mixer=config.model.mixer,
            options=config.model.options,
        )
    return model.double() if config.training.precision == "fp64" else model


def learning_rate_factor(config: RunConfig, step: int) -> float:
    """Return the learning rate at a step over its peak: linear warm-up, constant, then half a cosine down to ``final_share``."""
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
    """

    def __init__(self, config: RunConfig, task: Task, accelerator: Accelerator):
        self.config, self.task, self.accelerator = config, task, accelerator
        self.plain = build_model(config, task)
        groups = [
            {**group, "lr": config.training.learning_rate * group["factor"]}
            for group in self.plain.parameter_groups(fast_factor=config.training.fast_factor)
        ]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=config.training.weight_decay)
        self.model, self.optimizer = accelerator.prepare(self.plain, optimizer)
        self.controller = ConsolidationController(config.controller)
        self.routes = config.model.mixer.startswith("cram")
        self.counts = {"keys_counted": 0.0, "keys_computed": 0.0, "keys_dense": 0.0, "tokens": 0.0}
        self.exposures = ExposureCounter(patterns=config.task.patterns if isinstance(config.task, SRCDConfig) else 0)
        self.step = 0

    def control(self) -> RoutingControl:
        """Return what the next step may read; mixers without a router read as they always do."""
        return self.controller.control() if self.routes else RoutingControl(reads="all")

    def evaluation_control(self) -> RoutingControl:
        """Return what an evaluation may read now."""
        return self.controller.evaluation_control() if self.routes else RoutingControl(reads="all")

    def train_step(self) -> dict[str, Any]:
        """Take one optimizer step; return its losses and rates.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        control = self.control()
        batch, noise = local_batch(self.config, self.task, self.accelerator, self.step, exploring=control.reads == "routed")
        if self.routes and self.controller.wants_reference(self.step):
            self.controller.observe_reference(self._reference_loss(batch))
        factor = learning_rate_factor(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.training.learning_rate * group["factor"] * factor

        with self.accelerator.autocast():
            output: ModelOutput = self.model(batch, control=control, noise=noise)
            losses = self.plain.task_losses(output.outputs, batch)
            task_loss = self._weighted(losses)
            loss = task_loss + self._side_losses(output, control, losses)
        self._check(loss, losses)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.training.clip)
        self.optimizer.step()
        for block, block_output in zip(self.plain.blocks, output.blocks, strict=True):
            block.after_step(block_output)

        record = self._account(output, batch, control)
        record["task_loss"] = self._world_mean(task_loss)
        record["losses"] = {name: self._world_mean(value) for name, value in losses.items()}
        if self.routes:
            self.exposures.count(batch, output, routed=control.reads == "routed")
            self.controller.observe(self.step, loss=record["task_loss"], read_rate=record["any_layer_read_rate"])
        record |= {"phase": self.controller.phase if self.routes else "train", "price": control.price, "learning_rate": self.config.training.learning_rate * factor}
        self.step += 1
        return record

    def _weighted(self, losses: dict[str, Tensor]) -> Tensor:
        weights = self.config.training.head_weights
        return torch.stack([head.weight * weights.get(head.name, 1.0) * losses[head.name] for head in self.plain.specs]).sum()

    def _side_losses(self, output: ModelOutput, control: RoutingControl, losses: dict[str, Tensor]) -> Tensor:
        """Add the blocks' own losses; each also goes, by name and summed over layers, into ``losses``."""
        weights = self.config.training.losses.model_dump() | {"price": control.price}
        total = torch.zeros((), device=self.accelerator.device)
        for block in output.blocks:
            for name, value in block.losses.items():
                total = total + weights[name] * value
                losses[name] = losses.get(name, torch.zeros_like(value)) + value
        return total

    @torch.no_grad()
    def _reference_loss(self, batch: Batch) -> float:
        """Return the task loss with the same weights and every read forced. Its reads count as training cost."""
        self.model.eval()
        with self.accelerator.autocast():
            output = self.model(batch, control=RoutingControl(reads="all"))
            loss = self._weighted(self.plain.task_losses(output.outputs, batch))
        self.model.train()
        self._account(output, batch, RoutingControl(reads="all"), reference=True)
        return self._world_mean(loss)

    def _account(self, output: ModelOutput, batch: Batch, control: RoutingControl, *, reference: bool = False) -> dict[str, Any]:
        mask = torch.ones_like(batch.gap, dtype=torch.bool) if batch.mask is None else batch.mask
        decisions = [block.decision for block in output.blocks if block.decision is not None]
        reads = [decision.read for decision in decisions]
        computed = [decision.computed for decision in decisions]
        sums = [mask.sum(), any_layer(decisions).sum(), dense_keys(mask) * len(decisions), sum(d.explored.sum() for d in decisions)]
        sums += [sum(keys_scanned(read) for read in reads), sum(keys_scanned(read) for read in computed), *[read.sum() for read in reads]]
        total = world_sum(torch.stack([torch.as_tensor(value, device=mask.device).double() for value in sums])).tolist()
        tokens, some, dense, explored, counted, done, *by_layer = total
        self.counts["keys_counted"] += counted
        self.counts["keys_computed"] += done
        self.counts["keys_dense"] += 0.0 if reference else dense
        self.counts["tokens"] += 0.0 if reference else tokens
        signals = self._signals(output, batch)
        return {
            "length": batch.gap.shape[1],
            "any_layer_read_rate": some / tokens,
            "read_rate_by_layer": [value / tokens for value in by_layer],
            "attention_share": counted / dense,
            "explored_rate": explored / tokens / len(decisions),
            **signals,
        }

    @staticmethod
    @torch.no_grad()
    def _signals(output: ModelOutput, batch: Batch) -> dict[str, dict[str, float | None]]:
        """Observed quality and predicted familiarity of recurring and novel queries, in the first layer that read them."""
        found: dict[str, dict[str, float | None]] = {"quality": {}, "familiarity": {}}
        for name in ("recurring", "novel"):
            if name not in batch.slices:
                continue
            for block in output.blocks:
                quality = block.signals.get("quality")
                seen = batch.slices[name] if quality is None else batch.slices[name] & ~quality.isnan()
                if quality is None or block.decision is None or not seen.any():
                    found["quality"].setdefault(name, None)
                    found["familiarity"].setdefault(name, None)
                    continue
                found["quality"][name] = float(quality[seen].mean())
                found["familiarity"][name] = float(block.decision.familiarity[batch.slices[name]].mean())
                break
        return found

    def _check(self, loss: Tensor, losses: dict[str, Tensor]) -> None:
        if not math.isfinite(self._world_mean(loss)):
            bad = [name for name, value in losses.items() if not bool(torch.isfinite(value))]
            raise FloatingPointError(f"step {self.step}: the loss is not finite ({', '.join(bad) or 'sum of all'}); the last checkpoint is kept")

    def _world_mean(self, value: Tensor) -> float:
        return float(world_sum(value)) / self.accelerator.num_processes

    def save(self, run: RunDir, *, seconds: float) -> None:
        """Write a checkpoint; all processes must call it."""
        state = {"step": self.step, "controller": self.controller.state_dict(), "counts": self.counts, "exposures": self.exposures.state_dict()}
        save_checkpoint(run.path / CHECKPOINT, self.model, self.optimizer, {**state, "seconds": seconds}, write=self.accelerator.is_main_process)

    def load(self, run: RunDir) -> float:
        """Continue from the run's checkpoint; return the seconds that it had taken."""
        state = load_checkpoint(run.path / CHECKPOINT, self.model, self.optimizer)
        self.step, self.counts = state["step"], state["counts"]
        self.controller.load_state_dict(state["controller"])
        self.exposures.load_state_dict(state["exposures"])
        return float(state["seconds"])
