"""CRAM as a causal language model for Transformers, whatever the mixer.

    logits = head(model(tokens))

The Auto classes know the model type ``"cram"`` once ``torchcram`` is imported: see
:mod:`torchcram.models.auto_classes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from torchcram.memory.consolidator import Consolidator, named_losses, parameter_groups, weighed
from torchcram.models.configuration_cram import CRAMConfig
from torchcram.models.cram_model import CRAMModel
from torchcram.models.generation import CRAMGenerationMixin
from torchcram.models.keywords import check_keywords
from torchcram.models.outputs import CRAMCausalLMOutput
from torchcram.models.pretrained_model import CRAMPreTrainedModel
from torchcram.models.read_budget import Budget, BudgetedReads
from torchcram.types import BlockOutput, RoutingControl

__all__ = ["CRAMConfig", "CRAMForCausalLM", "CRAMModel"]

logger = logging.get_logger("transformers.torchcram")
# Is told a training pass: its arguments and its output.
Listener = Callable[[dict[str, Any], CRAMCausalLMOutput], None]


def registered(kind: Any) -> Any:
    """Make the Auto classes know the models, whichever of us was imported first."""
    AutoConfig.register(CRAMConfig.model_type, CRAMConfig, exist_ok=True)
    AutoModel.register(CRAMConfig, CRAMModel, exist_ok=True)
    AutoModelForCausalLM.register(CRAMConfig, kind, exist_ok=True)
    return kind


@registered
class CRAMForCausalLM(BudgetedReads, CRAMPreTrainedModel, CRAMGenerationMixin):
    """The language model: ``generate``, losses, budgets.

    In training, every token reads unless somebody leads (:meth:`lead`):
    :class:`torchcram.models.consolidation_callback.ConsolidationCallback` does so for
    ``transformers.Trainer``.

    Args:
        config: sizes and mixer.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (Transformers wants a dictionary here)

    def __init__(self, config: CRAMConfig):
        super().__init__(config)
        self.model = CRAMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._leader: Consolidator | None = None
        self._listener: Listener | None = None
        self.post_init()

    def lead(self, leader: Consolidator | None, *, listener: Listener | None = None) -> None:
        """Let a consolidator say what the next training passes read, and weigh their losses.

        Whoever led before does so no more, and is told nothing any more. Passes without gradients, such as
        ``generate``, are not led.

        Args:
            leader: made for this model, with a generator; None leaves the model to itself.
            listener: is told the arguments and the output of each training pass.

        Raises:
            ValueError: if the consolidator has no generator.
        """
        if leader is not None and leader.generator is None:
            raise ValueError("exploration draws noise: make the Consolidator with a generator")
        self._leader, self._listener = leader, listener

    @property
    def _learning(self) -> bool:
        """Whether this pass is one of training."""
        return self.training and torch.is_grad_enabled()

    def parameter_groups(self, *, learning_rate: float, fast_factor: float = 5.0) -> list[dict[str, Any]]:
        """Return groups for an optimizer: the trunk's, and a faster one for what routes and consolidates."""
        return parameter_groups(self, learning_rate, fast_factor=fast_factor)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_hidden_states: bool | None = None,
        output_routing: bool = False,
        control: RoutingControl | None = None,
        read_budget: Budget = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> CRAMCausalLMOutput:
        """Return logits, and with ``labels`` the loss; see :meth:`CRAMModel.forward` for what both have in
        common.

        Args:
            input_ids: tokens, as the five following: see :meth:`CRAMModel.forward`.
            attention_mask: real tokens.
            position_ids: positions.
            past_key_values: a cache.
            inputs_embeds: in place of tokens.
            use_cache: whether to return a cache.
            labels: ``[batch, time]`` tokens, shifted inside; -100 is not scored.
            logits_to_keep: last positions whose logits are wanted, 0 for all; or their indices.
            output_hidden_states: see :meth:`CRAMModel.forward`.
            output_routing: see :meth:`CRAMModel.forward`.
            control: what may be read; None for what training or the budget says.
            read_budget: bound of the reads for this call; None for what :meth:`set_read_budget` said.
            num_items_in_batch: scored tokens of all batches of a step, where gradients are accumulated.
            kwargs: ``shift_labels``, labels that are shifted already, and what Transformers passes to every
                model: :mod:`torchcram.models.keywords`.

        Raises:
            ValueError: as :meth:`CRAMModel.forward`, and for a budget that cannot be kept.
        """
        # No argument: Trainer takes every argument with "label" in its name for a column of the data.
        shift_labels = kwargs.pop("shift_labels", None)
        check_keywords(kwargs, CRAMForCausalLM.forward, packed_by_position=position_ids is not None)
        control = self._control(read_budget) if control is None else control
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            output_routing=output_routing,
            control=control,
            noise=self._noise(control, input_ids, inputs_embeds),
            return_dict=True,
        )
        kept = (
            slice(-logits_to_keep, None)
            if isinstance(logits_to_keep, int) and logits_to_keep > 0
            else slice(None)
        )
        logits = self.lm_head(
            output.last_hidden_state[:, kept if isinstance(logits_to_keep, int) else logits_to_keep]
        )
        losses = loss = None
        if labels is not None:
            scored = {"num_items_in_batch": num_items_in_batch, "shift_labels": shift_labels}
            losses = self._losses(logits, labels, output.blocks, scored)
            targets = labels[:, 1:] if shift_labels is None else shift_labels
            loss = self._total(losses["task"], output.blocks, targets, num_items_in_batch)
        result = CRAMCausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            routes=output.routes,
            read_rates=output.read_rates,
            losses=losses,
            blocks=output.blocks if self.training else None,
        )
        if self._listener is not None and self._learning:
            arguments = {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "position_ids": position_ids,
                "inputs_embeds": inputs_embeds,
                "labels": labels,
                "shift_labels": shift_labels,
                "num_items_in_batch": num_items_in_batch,
            }
            self._listener({name: value for name, value in arguments.items() if value is not None}, result)
        return result

    def _control(self, read_budget: Budget) -> RoutingControl:
        """What this pass may read."""
        if self._leader is not None and self.training:
            return self._leader.control() if self._learning else self._leader.evaluation_control()
        if self.training and self.model.routed:
            logger.warning_once(
                "Every token reads: nobody leads this training. Add torchcram's ConsolidationCallback to "
                "the Trainer, or call model.lead()."
            )
            return RoutingControl(reads="all")
        default = RoutingControl(
            reads=cast(Any, self.config.reads), threshold_shift=self.config.threshold_shift
        )
        return self._within(read_budget, default)

    def _noise(
        self, control: RoutingControl, input_ids: Tensor | None, inputs_embeds: Tensor | None
    ) -> Tensor | None:
        """Draw the noise of a training pass, outside of all layers: a checkpointed layer that runs again
        gets the same.
        """
        if not self._learning or self._leader is None or control.reads != "routed":
            return None
        given = cast(Tensor, inputs_embeds if input_ids is None else input_ids)
        shape = (*given.shape[:2], self.config.num_hidden_layers, 4)
        return torch.rand(shape, generator=self._leader.generator).to(given.device)

    def _losses(
        self, logits: Tensor, labels: Tensor, blocks: Sequence[BlockOutput], kwargs: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Return the language model's loss, and those of the layers, summed by name."""
        task = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return {"task": task, **named_losses(blocks)}

    def _total(
        self, task: Tensor, blocks: Sequence[BlockOutput], targets: Tensor, items: Any
    ) -> Float[Tensor, ""]:
        """Add the gradients of the layers' losses in training, not their value; with gradient accumulation
        each batch counts by its share of the scored tokens.
        """
        if not self._learning:
            return task
        share = torch.ones(())
        if items is not None:
            # Without any scored token there is nothing to share.
            share = (targets != -100).sum() / torch.as_tensor(items).clamp_min(1)
        share, nothing = share.to(task.device), torch.zeros_like(task)
        if self._leader is not None:
            added = self._leader.loss(nothing, blocks, share=share)
        else:
            added = share * weighed(blocks, self.config.loss_weights(), price=0.0)
        # What Trainer logs is the language model's loss, in training as in evaluation.
        return task + (added - added.detach())
