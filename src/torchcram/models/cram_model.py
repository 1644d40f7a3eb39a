"""The model below the head: embedding, layers, norm.

    x = embedding(token) sqrt(width)
    x = mixer(x, gap=1)                  one of torchcram.mixers in every layer: CRAM's block, or a baseline
    output = norm(x)

In text, one token follows another after one unit of time. Legend: ``rows`` and ``steps`` are those of
:mod:`torchcram.models.rows`: padding and packing are undone before any layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.utils.generic import can_return_tuple

from torchcram.baselines.static import StaticBlock
from torchcram.memory.block import CRAMBlock
from torchcram.memory.residual import ResidualBlock
from torchcram.models.cache import CRAMCacheLayer, check_cache
from torchcram.models.configuration_cram import CRAMConfig
from torchcram.models.decoder_layer import CRAMDecoderLayer
from torchcram.models.keywords import check_keywords
from torchcram.models.outputs import CRAMModelOutput
from torchcram.models.pretrained_model import CRAMPreTrainedModel
from torchcram.models.rows import Rows, arrange, arrange_fixed, check_continuation, present_mask
from torchcram.ops.rms_norm import RMSNorm
from torchcram.types import BlockOutput, RoutingControl, Step


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
        **kwargs: Any,
    ) -> CRAMModelOutput:
        """Run over a batch, or over its continuation.

        Args:
            input_ids: ``[batch, time]`` tokens, or None. No tokens (``[batch, 0]``) with a cache ask again
                for the output of the last ones that it holds.
            attention_mask: ``[batch, tokens so far]``, 0 on padding (left or right).
            position_ids: positions of the tokens; where they do not go on, another sequence begins (packing).
            past_key_values: a cache of this model, or None.
            inputs_embeds: ``[batch, time, width]`` in place of ``input_ids``.
            use_cache: whether to return a cache; None for the configuration's choice, for none in training
                and for packed sequences.
            output_hidden_states: whether to return the input of each layer, and the last output.
            output_routing: whether to return routes and read rates.
            control: what may be read; None for the configuration's choice.
            noise: uniform in [0, 1), for exploration in training.
            kwargs: what Transformers passes to every model: :mod:`torchcram.models.keywords`.

        Raises:
            ValueError: for a batch, a mask, positions, a cache or keywords that cannot be.
        """
        check_keywords(kwargs, CRAMModel.forward, packed_by_position=position_ids is not None)
        x = self._embedded(input_ids, inputs_embeds, continued=past_key_values is not None)
        batch, time = x.shape[:2]
        layers = None if past_key_values is None else self._layers_of(past_key_values, batch, time)
        given = cast(Tensor, inputs_embeds if input_ids is None else input_ids)
        mask = present_mask(attention_mask, given, past=layers[0].columns if layers else 0)
        rows = self._rows(x, mask, position_ids, layers)
        if layers is not None and rows.empty:
            return self._idle(x, past_key_values, layers)
        if past_key_values is None and self._caches(use_cache, rows):
            past_key_values = DynamicCache(config=self.config)
            layers = self._layers_of(past_key_values, batch, time)
        control = self._control(control)
        if layers is not None and control.consolidates:
            raise ValueError(
                "memory does not consolidate through a cache: call the model with use_cache=False "
                "and without past_key_values to train it"
            )
        hidden, blocks = self._run(
            rows.gathered(x), rows, layers, control, None if noise is None else rows.gathered(noise)
        )
        if layers is not None:
            self._advance(layers, blocks, hidden[-1], rows)
        return CRAMModelOutput(
            last_hidden_state=self.norm(rows.put_back(hidden[-1])),
            past_key_values=past_key_values,
            hidden_states=tuple(rows.put_back(one) for one in hidden) if output_hidden_states else None,
            routes=tuple(rows.put_back(_route(block)) for block in blocks) if output_routing else None,
            read_rates=_read_rates(blocks, rows) if output_routing else None,
            blocks=blocks,
        )

    def _embedded(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, *, continued: bool) -> Tensor:
        """Return the embeddings; tokens may be none where a cache is continued."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, not both or neither")
        given = cast(Tensor, inputs_embeds if input_ids is None else input_ids)
        if given.shape[0] == 0 or (given.shape[1] == 0 and not continued):
            raise ValueError(
                f"the batch is empty: it has shape {tuple(given.shape)}, at least one sequence of "
                "one token is needed"
            )
        weight = self.embed_tokens.weight
        # Hooks of accelerate move tokens to where the weights will be.
        if given.device != weight.device and not hasattr(self.embed_tokens, "_hf_hook"):
            raise ValueError(
                f"the tokens are on {given.device}, the model is on {weight.device}: "
                "move them with .to(model.device)"
            )
        x = given if input_ids is None else self.embed_tokens(input_ids)
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"inputs_embeds are {x.dtype}, the model is {weight.dtype}: "
                "convert them with .to(model.dtype)"
            )
        return x * self.config.hidden_size**0.5

    def _layers_of(self, cache: Any, batch: int, time: int) -> list[CRAMCacheLayer]:
        """Return the layers of a cache that can take so many more tokens."""
        return check_cache(
            cache,
            owner=self.config.signature(),
            layers=len(self.layers),
            batch_size=batch,
            columns=time,
            dtype=self.embed_tokens.weight.dtype,
        )

    def _caches(self, use_cache: bool | None, rows: Rows) -> bool:
        """Whether to return a fresh cache."""
        if use_cache is None:
            return self.config.use_cache and not self.training and not rows.packed and not self._fixed
        if use_cache and rows.packed:
            check_continuation(rows, torch.zeros(rows.batch, dtype=torch.long), None)
        return use_cache

    @property
    def _fixed(self) -> bool:
        """Whether a graph is captured in which no shape may depend on the data."""
        return self.config.routing == "dense" and torch.compiler.is_compiling()

    def _control(self, control: RoutingControl | None) -> RoutingControl:
        """Return what may be read, as this model computes it; in a training that nobody leads, everything."""
        if control is None and self.training:
            control = RoutingControl(reads="all")
        if control is None:
            control = RoutingControl(
                reads=cast(Any, self.config.reads), threshold_shift=self.config.threshold_shift
            )
        return control if self.routed else RoutingControl(reads="all")

    def _idle(self, x: Tensor, cache: Any, layers: list[CRAMCacheLayer]) -> CRAMModelOutput:
        """Go on with no tokens: their last output again, or nothing where padding stands."""
        for layer in layers:
            layer.columns += x.shape[1]
        output = torch.zeros_like(x) if x.shape[1] else _remembered(layers)
        return CRAMModelOutput(last_hidden_state=self.norm(output), past_key_values=cache, blocks=())

    def _rows(
        self,
        x: Tensor,
        mask: Tensor | None,
        position_ids: Tensor | None,
        layers: list[CRAMCacheLayer] | None,
    ) -> Rows:
        batch, time = x.shape[:2]
        if position_ids is not None and position_ids.shape[-1] != time:
            raise ValueError(f"position_ids are for {position_ids.shape[-1]} tokens, the batch has {time}")
        before = None
        if layers:
            state = layers[0].state
            before = x.new_zeros(batch, dtype=torch.long) if state is None else cast(Any, state.spent)[:, 0]
        # Hooks of accelerate may have moved the tokens away from what came with them.
        near = [None if value is None else value.to(x.device) for value in (mask, position_ids, before)]
        return (arrange_fixed if self._fixed else arrange)(
            batch, time, *near, longest=self.config.max_position_embeddings
        )

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
            block = layer(
                hidden[-1],
                replace(steps, noise=None if noise is None else noise[:, :, index]),
                None if layers is None else layers[index].state,
                room=None if layers is None else layers[index].room,
            )
            hidden.append(block.hidden_states)
            blocks.append(block)
        return hidden, tuple(blocks)

    def _advance(
        self, layers: list[CRAMCacheLayer], blocks: Sequence[BlockOutput], output: Tensor, rows: Rows
    ) -> None:
        """Let a cache take over what was carried, and the output of each sequence's last token."""
        for layer, block in zip(layers, blocks, strict=True):
            layer.advance(block.state, rows.time, owner=self.config.signature())
        layers[-1].last = rows.latest(output, layers[-1].last)


def _check_routing(config: CRAMConfig, mixers: Sequence[ResidualBlock]) -> None:
    if config.routing == "dense" and not all(isinstance(mixer, CRAMBlock | StaticBlock) for mixer in mixers):
        raise ValueError(
            f"routing 'dense' is not for mixer {config.mixer!r}, which leaves tokens out of its "
            "memory: use routing='sparse'"
        )


def _route(block: BlockOutput) -> Tensor:
    assert block.decision is not None
    return block.decision.route


def _read_rates(blocks: Sequence[BlockOutput], rows: Rows) -> Tensor:
    """Share of the real tokens that read, in each layer."""
    rates = [_read_rate(block, rows) for block in blocks]
    return torch.stack([rate.to(rates[-1].device) for rate in rates])


def _read_rate(block: BlockOutput, rows: Rows) -> Tensor:
    assert block.decision is not None
    read = block.decision.read
    real = torch.ones_like(read) if rows.mask is None else rows.mask.to(read.device)
    return (read & real).sum() / real.sum()


def _remembered(layers: Sequence[CRAMCacheLayer]) -> Tensor:
    """What the last layer said of the last token of each sequence in a cache."""
    if layers[-1].last is None:
        raise ValueError("there are no tokens, neither in the cache nor for it: pass at least one")
    return layers[-1].last[:, None]
