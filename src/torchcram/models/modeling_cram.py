"""CRAM as a causal language model for Transformers: one thin file, whatever the mixer.

    x = embedding(token) sqrt(width)
    x = mixer(x, gap=1)                  one of torchcram.mixers in every layer: CRAM's block, or a baseline
    logits = head(norm(x))

Importing this module makes ``AutoConfig``, ``AutoModel`` and ``AutoModelForCausalLM`` know the model type
``"cram"``. In text, one token follows another after one unit of time. Legend: ``rows`` and ``steps`` are
those of :mod:`torchcram.models.rows`: padding and packing are undone before any layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from torchcram.baselines.static import StaticBlock
from torchcram.memory.block import CRAMBlock
from torchcram.memory.budget import counted
from torchcram.memory.consolidator import Consolidator, named_losses, parameter_groups, weighed
from torchcram.memory.residual import ResidualBlock
from torchcram.models.cache import CRAMCacheLayer, check_cache
from torchcram.models.configuration_cram import CRAMConfig
from torchcram.models.read_budget import Budget, BudgetedReads, control_within
from torchcram.models.rows import Rows, check_continuation, lay_out, present_mask
from torchcram.ops.rms_norm import RMSNorm
from torchcram.ops.selection import Everything
from torchcram.types import BlockOutput, MemoryState, RoutingControl, Step

logger = logging.get_logger("transformers.torchcram")


@dataclass
class CRAMModelOutput(BaseModelOutputWithPast):
    """What :class:`CRAMModel` returns.

    Attributes:
        routes: with ``output_routing=True``: for each layer ``[batch, time]`` values of
            :class:`torchcram.Route`; WORKING on padding.
        read_rates: with ``output_routing=True``: for each layer the share of the real tokens that read.
        blocks: outputs of the layers, in rows.
    """

    # Transformers' own fields are annotated for one precision only.
    __no_type_check__ = True
    routes: tuple[Tensor, ...] | None = None
    read_rates: Tensor | None = None
    blocks: tuple[BlockOutput, ...] | None = None


@dataclass
class CRAMCausalLMOutput(CausalLMOutputWithPast):
    """What :class:`CRAMForCausalLM` returns.

    Attributes:
        loss: with labels: the language model's loss, in training with the layers' own losses.
        routes, read_rates: as in :class:`CRAMModelOutput`.
        losses: with labels: every loss by name, not weighted; ``task`` is the language model's.
        blocks: while training is led (:meth:`CRAMForCausalLM.lead`): what the layers' memories have to learn
            after the optimizer's step.
    """

    # Transformers' own fields are annotated for one precision only.
    __no_type_check__ = True
    routes: tuple[Tensor, ...] | None = None
    read_rates: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    blocks: tuple[BlockOutput, ...] | None = None


class CRAMDecoderLayer(GradientCheckpointingLayer):
    """One mixer, as a layer that can be checkpointed: its noise comes from outside, so that recomputation
    takes the same routes.
    """

    def __init__(self, config: CRAMConfig, layer: int):
        super().__init__()
        self.config, self.layer = config, layer
        self.mixer = cast(ResidualBlock, config.build_layer(layer))
        if config.routing == "dense":
            self.mixer.selection = Everything()

    def forward(self, hidden_states: Tensor, step: Step, state: MemoryState | None) -> BlockOutput:
        """Mix along the steps."""
        return self.mixer(hidden_states, step, state)


class CRAMPreTrainedModel(PreTrainedModel):
    """What both models have in common: how they are saved, initialised and told what to read."""

    config: CRAMConfig
    config_class = CRAMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CRAMDecoderLayer"]  # noqa: RUF012 (Transformers wants lists here)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _is_stateful = True
    _can_compile_fullgraph = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what is ours; a mixer's weights are those of a mixer that is just built."""
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self._spread())
        elif isinstance(module, CRAMForCausalLM) and not self.config.tie_word_embeddings:
            init.normal_(module.lm_head.weight, std=self._spread())
        elif isinstance(module, CRAMModel):
            init.ones_(module.norm.weight)
        elif isinstance(module, CRAMDecoderLayer):
            _renew(module)

    def _spread(self) -> float:
        return (
            self.config.hidden_size**-0.5
            if self.config.initializer_range is None
            else self.config.initializer_range
        )


def _renew(layer: CRAMDecoderLayer) -> None:
    """Give those weights of a layer that no checkpoint has set the values of a fresh one."""
    own = layer.mixer.state_dict(keep_vars=True)
    if all(getattr(weight, "_is_hf_initialized", False) for weight in own.values()):
        return
    with torch.device("cpu"):
        fresh = layer.config.build_layer(layer.layer).state_dict()
    for name, weight in own.items():
        init.copy_(weight, fresh[name])


def registered(kind: Any) -> Any:
    """Make the Auto classes know a model."""
    auto = AutoModelForCausalLM if issubclass(kind, GenerationMixin) else AutoModel
    AutoConfig.register(CRAMConfig.model_type, CRAMConfig, exist_ok=True)
    auto.register(CRAMConfig, kind, exist_ok=True)
    return kind


@registered
class CRAMModel(CRAMPreTrainedModel):
    """Embedding, layers, norm.

    Args:
        config: sizes and mixer.
    """

    def __init__(self, config: CRAMConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            CRAMDecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size)
        _check_routing(config, self.mixers)
        self.post_init()

    @property
    def mixers(self) -> list[ResidualBlock]:
        """The mixer of each layer."""
        return [cast(CRAMDecoderLayer, layer).mixer for layer in self.layers]

    @property
    def routed(self) -> bool:
        """Whether any layer has a router that learns."""
        return any(mixer.routed for mixer in self.mixers)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_routing: bool = False,
        control: RoutingControl | None = None,
        noise: Float[Tensor, "batch time layers 4"] | None = None,
        **_: Any,
    ) -> CRAMModelOutput:
        """Run over a batch, or over its continuation.

        Args:
            input_ids: ``[batch, time]`` tokens, or None.
            attention_mask: ``[batch, tokens so far]``, 0 on padding (left or right).
            position_ids: positions of the tokens; where they do not go on, another sequence begins (packing).
            past_key_values: a cache of this model, or None.
            inputs_embeds: ``[batch, time, width]`` in place of ``input_ids``.
            use_cache: whether to return a cache; None for the configuration's choice, in training for none.
            output_hidden_states: whether to return the input of each layer, and the last output.
            output_routing: whether to return routes and read rates.
            control: what may be read; None for the configuration's choice.
            noise: uniform in [0, 1), for exploration in training.

        Raises:
            ValueError: for a batch, a mask, positions or a cache that do not fit together.
        """
        x = self._embedded(input_ids, inputs_embeds)
        batch, time = x.shape[:2]
        use_cache = (
            (self.config.use_cache and not self.training and not torch.compiler.is_compiling())
            if use_cache is None
            else use_cache
        )
        cache = DynamicCache(config=self.config) if use_cache and past_key_values is None else past_key_values
        layers = None if cache is None else self._opened(cache, batch, time)
        rows = self._rows(batch, time, attention_mask, position_ids, layers)
        control = (
            RoutingControl(reads=cast(Any, self.config.reads), threshold_shift=self.config.threshold_shift)
            if control is None
            else control
        )
        control = control if self.routed else RoutingControl(reads="all")
        if layers is not None and control.consolidates:
            raise ValueError(
                "memory does not consolidate through a cache: call the model with use_cache=False "
                "and without past_key_values to train it"
            )
        hidden, blocks = self._run(
            rows.gathered(x), rows, layers, control, None if noise is None else rows.gathered(noise)
        )
        for layer, block in zip(layers or [], blocks, strict=bool(layers)):
            layer.advance(block.state, time)
        return CRAMModelOutput(
            last_hidden_state=self.norm(rows.put_back(hidden[-1])),
            past_key_values=cache,
            hidden_states=tuple(rows.put_back(one) for one in hidden) if output_hidden_states else None,
            routes=tuple(rows.put_back(_route(block)) for block in blocks) if output_routing else None,
            read_rates=torch.stack([_read_rate(block, rows) for block in blocks]) if output_routing else None,
            blocks=blocks,
        )

    def _embedded(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, not both or neither")
        given = cast(Tensor, inputs_embeds if input_ids is None else input_ids)
        if given.numel() == 0:
            raise ValueError(
                f"the batch is empty: it has shape {tuple(given.shape)}, at least one sequence of "
                "one token is needed"
            )
        if given.device != self.embed_tokens.weight.device:
            raise ValueError(
                f"the tokens are on {given.device}, the model is on {self.embed_tokens.weight.device}: "
                "move them with .to(model.device)"
            )
        x = given if input_ids is None else self.embed_tokens(input_ids)
        if x.dtype != self.embed_tokens.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"inputs_embeds are {x.dtype}, the model is {self.embed_tokens.weight.dtype}: "
                "convert them with .to(model.dtype)"
            )
        return x * self.config.hidden_size**0.5

    def _opened(self, cache: Any, batch: int, time: int) -> list[CRAMCacheLayer]:
        """Return the layers of a cache, filled with a first state if they are empty."""
        owner, weight = self.config.signature(), self.embed_tokens.weight
        layers = check_cache(
            cache,
            owner=owner,
            layers=len(self.layers),
            batch_size=batch,
            columns=time,
            device=weight.device,
            dtype=weight.dtype,
        )
        for layer, mixer in zip(layers, self.mixers, strict=True):
            if layer.state is None:
                layer.begin(mixer, batch, owner=owner)
        return layers

    def _rows(
        self,
        batch: int,
        time: int,
        attention_mask: Any,
        position_ids: Tensor | None,
        layers: list[CRAMCacheLayer] | None,
    ) -> Rows:
        past = layers[0].columns if layers else 0
        mask = present_mask(attention_mask, batch, time, past, device=self.embed_tokens.weight.device)
        if torch.compiler.is_compiling():
            return lay_out(batch, time, mask, fixed=True)
        if mask is not None and not bool(mask.any()):
            raise ValueError("attention_mask is zero everywhere: there is no token to work on")
        if position_ids is not None and position_ids.shape[-1] != time:
            raise ValueError(f"position_ids are for {position_ids.shape[-1]} tokens, the batch has {time}")
        rows = lay_out(batch, time, mask, None if position_ids is None else position_ids.expand(batch, -1))
        before = torch.zeros(1, dtype=torch.long)
        if layers:
            before = cast(Any, layers[0].state).spent[:, 0].cpu()
            check_continuation(rows, before, position_ids)
        longest, limit = int((before + rows.lengths).max()), self.config.max_position_embeddings
        if limit is not None and longest > limit:
            raise ValueError(f"a sequence of {longest} tokens is longer than max_position_embeddings {limit}")
        return rows

    def _run(
        self,
        x: Tensor,
        rows: Rows,
        layers: list[CRAMCacheLayer] | None,
        control: RoutingControl,
        noise: Tensor | None,
    ) -> tuple[list[Tensor], tuple[BlockOutput, ...]]:
        """Run the layers over rows; return the stream before each of them and after the last, and what
        they said.
        """
        gap = torch.ones(x.shape[:2], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        hidden, blocks = [x], []
        # A step's target, the next token, is one unit of time away.
        steps = Step(gap=gap, control=control, mask=rows.mask, horizon=gap, token=x)
        for index, layer in enumerate(self.layers):
            state = None if layers is None else layers[index].state
            step = replace(steps, noise=None if noise is None else noise[:, :, index])
            block = layer(hidden[-1], step, state)
            if state is not None and state.spent is not None and not isinstance(layer.mixer, CRAMBlock):
                read = (
                    block.decision.read
                    if block.decision is not None
                    else torch.zeros_like(gap, dtype=torch.bool)
                )
                block = replace(
                    block, state=replace(block.state, spent=counted(state.spent, read, rows.mask))
                )
            hidden.append(block.hidden_states)
            blocks.append(block)
        return hidden, tuple(blocks)


@registered
class CRAMForCausalLM(BudgetedReads, CRAMPreTrainedModel, GenerationMixin):
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
        self.post_init()

    def lead(self, leader: Consolidator | None) -> None:
        """Let a consolidator say what the next training passes read, and weigh their losses.

        Args:
            leader: made for this model, with a generator; None leaves the model to itself.

        Raises:
            ValueError: if the consolidator has no generator.
        """
        if leader is not None and leader.generator is None:
            raise ValueError("exploration draws noise: make the Consolidator with a generator")
        self._leader = leader

    def generate(self, *args: Any, read_budget: Budget = None, **kwargs: Any) -> Any:
        """Generate as every model of Transformers does; ``read_budget`` holds for this call (None: what
        :meth:`set_read_budget` said).

        Raises:
            ValueError: for a budget that cannot be kept, or a row of padding alone.
        """
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.dim() == 2 and not bool(mask.any(1).all()):
            raise ValueError(
                f"row {int((~mask.bool().any(1)).nonzero()[0])} of attention_mask is padding "
                "alone: leave it out, or give it a first token"
            )
        with self.set_read_budget(self.read_budget if read_budget is None else read_budget):
            # Transformers annotates self by a class of its own that no model derives from.
            return super().generate(*args, **kwargs)  # type: ignore[misc]

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
            kwargs: what ``Trainer`` and ``generate`` pass on, such as ``num_items_in_batch``.
        """
        control = self._control() if control is None else control
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
        )
        kept = (
            slice(-logits_to_keep, None)
            if isinstance(logits_to_keep, int) and logits_to_keep > 0
            else slice(None)
        )
        logits = self.lm_head(
            output.last_hidden_state[:, kept if isinstance(logits_to_keep, int) else logits_to_keep]
        )
        losses = None if labels is None else self._losses(logits, labels, output.blocks, kwargs)
        return CRAMCausalLMOutput(
            loss=None
            if losses is None
            else self._total(
                losses["task"], output.blocks, cast(Tensor, labels), kwargs.get("num_items_in_batch")
            ),
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            routes=output.routes,
            read_rates=output.read_rates,
            losses=losses,
            blocks=output.blocks if self.training else None,
        )

    def _control(self) -> RoutingControl:
        """What this pass may read."""
        if self.training and self._leader is not None:
            return self._leader.control()
        if self.training and self.model.routed:
            logger.warning_once(
                "Every token reads: nobody leads this training. Add torchcram's ConsolidationCallback to "
                "the Trainer, or call model.lead()."
            )
            return RoutingControl(reads="all")
        default = RoutingControl(
            reads=cast(Any, self.config.reads), threshold_shift=self.config.threshold_shift
        )
        return control_within(self.read_budget, default, self.risk_curve)

    def _noise(
        self, control: RoutingControl, input_ids: Tensor | None, inputs_embeds: Tensor | None
    ) -> Tensor | None:
        """Draw the noise of a training pass, outside of all layers: a checkpointed layer that runs again
        gets the same.
        """
        if not self.training or self._leader is None or control.reads != "routed":
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
        self, task: Tensor, blocks: Sequence[BlockOutput], labels: Tensor, items: Any
    ) -> Float[Tensor, ""]:
        """Add the layers' losses in training; with gradient accumulation each batch counts by its share of
        the scored tokens.
        """
        if not self.training:
            return task
        share = 1.0 if items is None else (labels[:, 1:] != -100).sum() / items
        if self._leader is not None:
            return self._leader.loss(task, blocks, share=share)
        return task + share * weighed(blocks, self.config.loss_weights(), price=0.0)


def _check_routing(config: CRAMConfig, mixers: Sequence[ResidualBlock]) -> None:
    if config.routing == "dense" and not all(isinstance(mixer, CRAMBlock | StaticBlock) for mixer in mixers):
        raise ValueError(
            f"routing 'dense' is not for mixer {config.mixer!r}, which leaves tokens out of its "
            "memory: use routing='sparse'"
        )


def _route(block: BlockOutput) -> Tensor:
    assert block.decision is not None
    return block.decision.route


def _read_rate(block: BlockOutput, rows: Rows) -> Tensor:
    assert block.decision is not None
    read = block.decision.read if rows.mask is None else block.decision.read[rows.mask]
    return read.float().mean()
