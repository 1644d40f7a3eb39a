"""Leads a language model through acquire, consolidate and mature while ``transformers.Trainer`` trains it.

    Trainer(model=model, args=args, train_dataset=..., callbacks=[ConsolidationCallback()])

At each step the controller says what may be read; after the optimizer's step semantic memory takes in what
was read, and the controller is told how it went. The callback's state is saved with every checkpoint; resume
with ``restore_callback_states_from_checkpoint=True``. It changes the model's configuration as training goes
on, so that a saved model reads in evaluation what training would let it read.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from torchcram.accounting import any_layer
from torchcram.memory.consolidation import ConsolidationController, ControllerConfig
from torchcram.models.modeling_cram import CRAMCausalLMOutput, CRAMForCausalLM
from torchcram.ops.collective import world_sum
from torchcram.types import BlockOutput, RoutingControl

# Logits that no predicted familiarity reaches.
NEVER_FAMILIAR = 1e3


class ConsolidationCallback(TrainerCallback, ExportableState):
    """A :class:`ConsolidationController` for ``Trainer``.

    Args:
        rules: the controller's rules, or their fields as a mapping; None for the defaults.

    Attributes:
        controller: phase, price and caution at present.
        history: one record a step: ``step``, ``phase``, ``price``, ``task_loss``, ``read_rate``,
            ``layer_read_rates``; it is not saved.
    """

    def __init__(self, rules: ControllerConfig | dict[str, Any] | None = None):
        self.rules = rules if isinstance(rules, ControllerConfig) else ControllerConfig.parse(rules or {})
        self.controller = ConsolidationController(self.rules)
        self.history: list[dict[str, Any]] = []
        self.learned: list[tuple[BlockOutput, ...]] = []
        self.sums: Tensor | None = None
        self.reference: tuple[float, float] | None = None
        self.busy, self.wants_reference = False, False
        self.resumed_at = 0
        self.hook: Any = None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "args": {"rules": self.rules.model_dump(mode="json")},
            "attributes": {"progress": self.controller.state_dict()},
        }

    @property
    def progress(self) -> dict[str, Any]:
        """The controller's state, as plain numbers."""
        return self.controller.state_dict()

    @progress.setter
    def progress(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state)
        self.resumed_at = 1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen to the model.

        Raises:
            ValueError: if the model is none of ours, or training is resumed without the controller's state.
        """
        model = kwargs["model"]
        if not isinstance(model, CRAMForCausalLM):
            raise ValueError(f"ConsolidationCallback leads a CRAMForCausalLM, not a {type(model).__name__}")
        if (
            state.global_step > 0
            and not self.resumed_at
            and "ConsolidationCallback" in (state.stateful_callbacks or {})
        ):
            raise ValueError(
                "the controller's state is not restored: resume with "
                "TrainingArguments(restore_callback_states_from_checkpoint=True)"
            )
        self.hook = model.register_forward_hook(self._listen, with_kwargs=True)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the model what this step may read."""
        model = kwargs["model"]
        generator = torch.Generator().manual_seed(
            hash((args.seed, state.global_step, args.process_index)) % 2**63
        )
        self.learned, self.sums, self.reference = [], None, None
        self.wants_reference = model.model.routed and self.controller.wants_reference(state.global_step)
        model.lead(
            self.controller.control() if model.model.routed else RoutingControl(reads="all"), generator
        )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let semantic memory take in what was read."""
        for blocks in self.learned:
            for mixer, block in zip(kwargs["model"].model.mixers, blocks, strict=True):
                mixer.after_step(block)
        self.learned = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the controller how the step went."""
        model, step = kwargs["model"], state.global_step - 1
        assert self.sums is not None
        total, scored, tokens, *read = world_sum(self.sums).tolist()
        record = {
            "step": step,
            "phase": self.controller.phase,
            "price": self.controller.price,
            "task_loss": total / max(scored, 1.0),
        }
        record |= {"read_rate": read[0] / tokens, "layer_read_rates": [count / tokens for count in read[1:]]}
        self.history.append(record)
        if self.reference is not None:
            self.controller.observe_reference(self.reference[0], routed=self.reference[1])
        if model.model.routed and math.isfinite(record["task_loss"]):
            self.controller.observe(step, loss=record["task_loss"], read_rate=record["read_rate"])
            allowed = self.controller.evaluation_control()
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
        """Keep what a training pass has to teach, and what the controller wants to know of it."""
        if self.busy or not model.training or output.blocks is None or output.losses is None:
            return
        self.learned.append(output.blocks)
        scored = (kwargs["labels"][:, 1:] != -100).sum().double()
        items = kwargs.get("num_items_in_batch")
        task = output.losses["task"].detach().double() * (scored if items is None else items)
        decisions = [block.decision for block in output.blocks if block.decision is not None]
        reads = [
            any_layer(decisions).sum().double(),
            *(decision.read.sum().double() for decision in decisions),
        ]
        sums = torch.stack([task, scored, _tokens(kwargs), *reads])
        self.sums = sums if self.sums is None else self.sums + sums
        if self.wants_reference and self.reference is None:
            self.reference = self._measured(model, kwargs, float(world_sum(task / scored.clamp_min(1))))

    @torch.no_grad()
    def _measured(self, model: CRAMForCausalLM, kwargs: dict[str, Any], routed: float) -> tuple[float, float]:
        """Return the smaller loss of two passes over the same batch, all reads forced and a read for every
        token in need, and the routed one beside it.
        """
        self.busy = True
        inputs = {
            name: value for name, value in kwargs.items() if name not in ("num_items_in_batch", "control")
        }
        model.eval()
        try:
            controls = (RoutingControl(reads="all"), RoutingControl(threshold_shift=NEVER_FAMILIAR))
            losses = [model(**inputs, control=control, use_cache=False).loss.double() for control in controls]
        finally:
            model.train()
            self.busy = False
        return min(float(world_sum(loss)) for loss in losses), routed


def _tokens(kwargs: dict[str, Any]) -> Tensor:
    """The number of real tokens of a pass."""
    mask = kwargs.get("attention_mask")
    return (kwargs["labels"].new_tensor(kwargs["labels"].numel()) if mask is None else mask.sum()).double()
