"""Leads a language model through acquire, consolidate and mature while ``transformers.Trainer`` trains it.

    Trainer(model=model, args=args, train_dataset=..., callbacks=[ConsolidationCallback()])

It is a client of :class:`torchcram.memory.consolidator.Consolidator`: at each step the consolidator says what
may be read, and before the optimizer's step it takes in how the step went. Its state is saved with every
checkpoint; resume with ``restore_callback_states_from_checkpoint=True``. The model's configuration follows,
so that a saved model reads in evaluation what training would let it read.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from torchcram.accounting import any_layer
from torchcram.memory.consolidator import Consolidator
from torchcram.memory.phases import ConsolidationRules
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.models.outputs import CRAMCausalLMOutput
from torchcram.ops.collective import world_sum
from torchcram.types import BlockOutput, RoutingControl


class ConsolidationCallback(TrainerCallback, ExportableState):
    """A :class:`torchcram.Consolidator` for ``Trainer``. A model without a router is only watched.

    Args:
        rules: the consolidator's rules, or their fields as a mapping; None for the defaults.

    Attributes:
        consolidator: who leads, from the beginning of training on; None before, and without a router.
        history: one record a step: ``step``, ``phase``, ``price``, ``task_loss``, ``read_rate``,
            ``layer_read_rates``; it is not saved.
    """

    def __init__(self, rules: ConsolidationRules | dict[str, Any] | None = None):
        self.rules = rules if isinstance(rules, ConsolidationRules) else ConsolidationRules.parse(rules or {})
        self.consolidator: Consolidator | None = None
        self.history: list[dict[str, Any]] = []
        self.passes: list[tuple[dict[str, Any], tuple[BlockOutput, ...]]] = []
        self.sums: Tensor | None = None
        self.restored: dict[str, Any] | None = None
        self.rerunning = False
        self.hook: Any = None

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
        """Lead the model, and listen to it.

        Raises:
            ValueError: if the model is none of ours, or training is resumed without the consolidator's state.
        """
        model = kwargs["model"]
        if not isinstance(model, CRAMForCausalLM):
            raise ValueError(f"ConsolidationCallback leads a CRAMForCausalLM, not a {type(model).__name__}")
        resumed = state.global_step > 0 and "ConsolidationCallback" in (state.stateful_callbacks or {})
        if resumed and self.restored is None:
            raise ValueError(
                "the consolidator's state is not restored: resume with "
                "TrainingArguments(restore_callback_states_from_checkpoint=True)"
            )
        if model.model.routed:
            self.consolidator = Consolidator(
                model, self.rules, generator=torch.Generator(), weights=model.config.loss_weights()
            )
            if self.restored is not None:
                self.consolidator.load_state_dict(self.restored)
        model.lead(self.consolidator)
        self.hook = model.register_forward_hook(self._listen, with_kwargs=True)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the step before. The noise of a step depends on its number alone."""
        self.passes, self.sums = [], None
        if self.consolidator is not None and self.consolidator.generator is not None:
            seed = hash((args.seed, state.global_step, args.process_index)) % 2**63
            self.consolidator.generator.manual_seed(seed)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the consolidator take in the step, and tell the model what it may read from now on."""
        model, leader = kwargs["model"], self.consolidator
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
        allowed = leader.evaluation_control()
        model.config.reads, model.config.threshold_shift = allowed.reads, allowed.threshold_shift

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model to itself."""
        kwargs["model"].lead(None)
        self.hook.remove()

    def _listen(
        self,
        model: CRAMForCausalLM,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: CRAMCausalLMOutput,
    ) -> None:
        """Keep what a training pass has to teach, and what the consolidator wants to know of it."""
        if self.rerunning or not model.training or output.blocks is None or output.losses is None:
            return
        inputs = {name: kwargs[name] for name in kwargs if name not in ("num_items_in_batch", "control")}
        self.passes.append((inputs, output.blocks))
        scored, items = _scored(kwargs), kwargs.get("num_items_in_batch")
        task = output.losses["task"].detach().double() * (scored if items is None else items)
        decisions = [block.decision for block in output.blocks if block.decision is not None]
        by_layer = [decision.read.sum().double() for decision in decisions]
        sums = torch.stack([task, scored, _tokens(kwargs), any_layer(decisions).sum().double(), *by_layer])
        self.sums = sums if self.sums is None else self.sums + sums

    def _loss_under(self, model: CRAMForCausalLM, control: RoutingControl) -> Tensor:
        """Return the task loss of the step's passes under a control, each counted by its scored tokens."""
        self.rerunning = True
        try:
            counts = [_scored(inputs) for inputs, _ in self.passes]
            losses = [model(**inputs, control=control, use_cache=False).loss for inputs, _ in self.passes]
        finally:
            self.rerunning = False
        total = sum(loss.double() * count for loss, count in zip(losses, counts, strict=True) if count > 0)
        return torch.as_tensor(total) / torch.stack(counts).sum().clamp_min(1)


def _scored(kwargs: dict[str, Any]) -> Tensor:
    """Return the number of tokens of a pass that are predicted."""
    return (kwargs["labels"][:, 1:] != -100).sum().double()


def _tokens(kwargs: dict[str, Any]) -> Tensor:
    """The number of real tokens of a pass."""
    mask = kwargs.get("attention_mask")
    return (kwargs["labels"].new_tensor(kwargs["labels"].numel()) if mask is None else mask.sum()).double()
