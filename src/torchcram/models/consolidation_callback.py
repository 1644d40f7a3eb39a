"""Leads a language model through acquire, consolidate and mature while ``transformers.Trainer`` trains it.

    Trainer(model=model, args=args, train_dataset=..., callbacks=[ConsolidationCallback()])

It is a client of :class:`torchcram.memory.consolidator.Consolidator`: at each step the consolidator says what
may be read, and before the optimizer's step it takes in how the step went. Its state is saved with every
checkpoint; resume with ``restore_callback_states_from_checkpoint=True``. The model's configuration follows,
so that a saved model reads in evaluation what training would let it read.

What Trainer logs as ``loss`` is the language model's loss alone. Phase, price, read rate and the layers' own
losses stand beside it; :meth:`ConsolidationCallback.before_trackers` shows them to its trackers, too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from torchcram.accounting import any_layer
from torchcram.memory.consolidator import Consolidator
from torchcram.memory.phases import ConsolidationRules
from torchcram.models.configuration_cram import CRAMConfig
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.models.outputs import CRAMCausalLMOutput
from torchcram.models.trainer_checks import check_leadable, require_labels, require_own_loss
from torchcram.ops.collective import world_sum
from torchcram.types import BlockOutput, RoutingControl

# Trackers draw numbers.
PHASES = ("train", "acquire", "consolidate", "mature")


class ConsolidationCallback(TrainerCallback, ExportableState):
    """A :class:`torchcram.Consolidator` for ``Trainer``. A model without a router is only watched.

    Args:
        rules: the consolidator's rules, or their fields as a mapping; None for the defaults.

    Attributes:
        consolidator: who leads, from the beginning of training on; None before, and without a router.
        history: one record a step: ``step``, ``phase``, ``price``, ``task_loss``, ``read_rate``,
            ``layer_read_rates``, ``losses`` (the layers' own, by name); it is not saved.
    """

    def __init__(self, rules: ConsolidationRules | dict[str, Any] | None = None):
        self.rules = rules if isinstance(rules, ConsolidationRules) else ConsolidationRules.parse(rules or {})
        self.consolidator: Consolidator | None = None
        self.history: list[dict[str, Any]] = []
        self.passes: list[tuple[dict[str, Any], tuple[BlockOutput, ...]]] = []
        self.sums: Tensor | None = None
        self.layer_losses: dict[str, Tensor] = {}
        self.backwards = 0
        self.restored: dict[str, Any] | None = None

    def before_trackers(self, trainer: Trainer) -> None:
        """Let the trackers of a trainer (``report_to``) see phase, price and read rate: it calls its own
        callbacks first otherwise, and they log what they were given.
        """
        callbacks = trainer.callback_handler.callbacks
        trainer.callback_handler.callbacks = [self, *(one for one in callbacks if one is not self)]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        rules = self.rules.model_dump(mode="json")
        return {"args": {"rules": rules}, "attributes": {"progress": self.progress}}

    @property
    def progress(self) -> dict[str, Any] | None:
        """The consolidator's state, as plain numbers. Each step draws its noise anew."""
        if self.consolidator is None:
            return self.restored
        return self.consolidator.state_dict() | {"generator": None}

    @progress.setter
    def progress(self, state: dict[str, Any] | None) -> None:
        self.restored = state

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Lead the model, and listen to it. Whoever did so in a training that was interrupted does so no
        more.

        Raises:
            ValueError: if the model is none of ours or holds an adapter, if labels would not reach it, or if
                training is resumed without the consolidator's state.
        """
        model = kwargs["model"]
        check_leadable(model, args)
        resumed = state.global_step > 0 and "ConsolidationCallback" in (state.stateful_callbacks or {})
        if resumed and self.restored is None:
            raise ValueError(
                "the consolidator's state is not restored: resume with "
                "TrainingArguments(restore_callback_states_from_checkpoint=True)"
            )
        self.consolidator, self.history = None, []
        if model.model.routed:
            self.consolidator = Consolidator(
                model, self.rules, generator=torch.Generator(), weights=model.config.loss_weights()
            )
            if self.restored is not None:
                self.consolidator.load_state_dict(self.restored)
            self._allow(model)
        model.lead(self.consolidator, listener=self._listen)
        self._forget()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the step before. The noise of a step depends on its number alone."""
        self._forget()
        if self.consolidator is not None and self.consolidator.generator is not None:
            seed = hash((args.seed, state.global_step, args.process_index)) % 2**63
            self.consolidator.generator.manual_seed(seed)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the consolidator take in the step, and tell the model what it may read from now on.

        Raises:
            ValueError: if the loss that was trained is not the model's.
        """
        model, leader = kwargs["model"], self.consolidator
        require_own_loss(self.backwards)
        assert self.sums is not None
        total, scored, tokens, *read = world_sum(self.sums).tolist()
        task_loss, read_rate = total / max(scored, 1.0), read[0] / tokens
        self.history.append(
            {
                "step": state.global_step,
                "phase": "train" if leader is None else leader.phase,
                "price": 0.0 if leader is None else leader.price,
                "task_loss": task_loss,
                "read_rate": read_rate,
                "layer_read_rates": [count / tokens for count in read[1:]],
                "losses": {
                    name: float(value) / len(self.passes) for name, value in self.layer_losses.items()
                },
            }
        )
        if leader is None:
            return
        if scored == 0:
            leader.skip()
            return
        blocks = [block for _, outputs in self.passes for block in outputs]
        rerun = partial(self._loss_under, model)
        leader.step(blocks, task_loss, rerun=rerun, read_rate=read_rate)
        self._allow(model)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the last step's record beside the loss that Trainer logs."""
        logs = kwargs.get("logs") or {}
        if "loss" not in logs or not self.history:
            return
        last = self.history[-1]
        told = {
            "phase": float(PHASES.index(last["phase"])),
            "price": last["price"],
            "read_rate": last["read_rate"],
            **{f"{name}_loss": value for name, value in last["losses"].items()},
        }
        logs.update(told)
        state.log_history[-1].update(told)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model to itself. With the weights of the best checkpoint go the reads of that one."""
        model = kwargs["model"]
        model.lead(None)
        self._forget()
        if args.load_best_model_at_end and state.best_model_checkpoint:
            best = CRAMConfig.from_pretrained(state.best_model_checkpoint)
            model.config.reads, model.config.threshold_shift = best.reads, best.threshold_shift

    def _forget(self) -> None:
        self.passes, self.sums, self.layer_losses, self.backwards = [], None, {}, 0

    def _allow(self, model: CRAMForCausalLM) -> None:
        """Let the model read in evaluation what the consolidator would now let it read."""
        assert self.consolidator is not None
        allowed = self.consolidator.evaluation_control()
        model.config.reads, model.config.threshold_shift = allowed.reads, allowed.threshold_shift

    def _listen(self, arguments: dict[str, Any], output: CRAMCausalLMOutput) -> None:
        """Keep what a training pass has to teach, and what the consolidator wants to know of it."""
        require_labels(output)
        assert output.losses is not None and output.blocks is not None and output.loss is not None
        inputs = {name: arguments[name] for name in arguments if name != "num_items_in_batch"}
        self.passes.append((inputs, output.blocks))
        if output.loss.requires_grad:
            output.loss.register_hook(self._count_backward)
        for name, value in output.losses.items():
            if name != "task":
                self.layer_losses[name] = value.detach() + self.layer_losses.get(name, 0.0)
        scored, items = _scored(arguments), arguments.get("num_items_in_batch")
        task = output.losses["task"].detach().double() * (scored if items is None else items)
        decisions = [block.decision for block in output.blocks if block.decision is not None]
        by_layer = [decision.read.sum().double() for decision in decisions]
        sums = torch.stack([task, scored, _tokens(arguments), any_layer(decisions).sum().double(), *by_layer])
        self.sums = sums if self.sums is None else self.sums + sums

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += 1

    def _loss_under(self, model: CRAMForCausalLM, control: RoutingControl) -> Tensor:
        """Return the task loss of the step's passes under a control, each counted by its scored tokens."""
        counts = [_scored(inputs) for inputs, _ in self.passes]
        losses = [model(**inputs, control=control, use_cache=False).loss for inputs, _ in self.passes]
        total = sum(loss.double() * count for loss, count in zip(losses, counts, strict=True) if count > 0)
        return torch.as_tensor(total) / torch.stack(counts).sum().clamp_min(1)


def _scored(arguments: dict[str, Any]) -> Tensor:
    """Return the number of tokens of a pass that are predicted."""
    targets = arguments["shift_labels"] if "shift_labels" in arguments else arguments["labels"][:, 1:]
    return (targets != -100).sum().double()


def _tokens(arguments: dict[str, Any]) -> Tensor:
    """The number of real tokens of a pass."""
    mask = arguments.get("attention_mask")
    labels = arguments["labels"]
    return (labels.new_tensor(labels.numel()) if mask is None else mask.sum()).double()
