"""Memories into a model, and out again, in place: parameters keep their names, nothing of the model is copied
or changed, and what is taken out leaves no trace.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torchcram.pretrained.retrofit.block import CACHES, NAME, RetrofittedBlock, enter, leave
from torchcram.pretrained.retrofit.control import ReadControl
from torchcram.pretrained.retrofit.families import TABLE, family_of, own_window
from torchcram.pretrained.retrofit.kept import Keeper
from torchcram.pretrained.retrofit.memory import LayerMemory
from torchcram.pretrained.retrofit.reach import Reach
from torchcram.pretrained.retrofit.router import HarmRouter
from torchcram.pretrained.retrofit.semantic import LinearRemote, LowRankRemote, SemanticMemory, SlotRemote
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.types import ReadBudget, Reads


class Retrofit:
    """What is true of all retrofitted layers of a model; a hook of its decoder, which sees the mask of every
    pass.

    Attributes:
        settings: what it is made of.
        control: what may be read.
        base: name and digest of the untouched model; empty before it was saved.
    """

    def __init__(self, settings: RetrofitSettings):
        self.settings, self.control = settings, ReadControl(price=settings.price)
        self.base: dict[str, str] = {}

    def set_price(self, price: float) -> None:
        """Set the price of a read for good, in nats: it is saved with the model."""
        self.settings = self.settings.updated("price", price)
        self.control.price = price

    def __call__(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note which tokens of the pass are real.

        Raises:
            ValueError: for a mask that is no padding mask, or does not fit the cache.
        """
        given = inspect.signature(decoder.forward).bind(*args, **kwargs).arguments
        tokens = given.get("input_ids") if given.get("input_ids") is not None else given.get("inputs_embeds")
        mask = given.get("attention_mask")
        if mask is None or tokens is None:
            _require_unpacked(given.get("position_ids"), None)
            self.control.begin(None)
            return
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            raise ValueError(
                "a retrofitted model takes a padding mask, [batch, time] with 0 on padding: masks that were "
                "already made (four dimensions, or static caches) do not say what is padding"
            )
        now = mask[:, -tokens.shape[1] :].bool()
        cache = next((given[name] for name in CACHES if given.get(name) is not None), None)
        _require_fitting(mask, tokens.shape[1], cache)
        _require_unpacked(given.get("position_ids"), now)
        self.control.begin(now)


def _require_fitting(mask: Tensor, steps: int, cache: Any) -> None:
    before = 0 if cache is None else int(cache.get_seq_length())
    if mask.shape[1] not in (steps, before + steps):
        raise ValueError(
            f"the mask is {mask.shape[1]} tokens long, the cache and the batch are {before + steps}: it must "
            "cover both"
        )


def _require_unpacked(positions: Tensor | None, real: Tensor | None) -> None:
    if positions is None or positions.ndim != 2 or positions.shape[1] < 2:
        return
    falls = positions[:, 1:] <= positions[:, :-1]
    if real is not None and len(positions) == len(real):
        falls = falls & real[:, 1:] & real[:, :-1]
    elif real is not None:
        return
    if bool(falls.any()):
        raise ValueError(
            "position_ids begin anew within a row: sequences that are packed into one row "
            "cannot be told apart; give them rows of their own"
        )


def attention_blocks(model: Any) -> dict[int, nn.Module]:
    """Return the attention blocks of a model's decoder, by number of the layer.

    Raises:
        ValueError: if there are none, or some that cannot be retrofitted.
    """
    blocks: dict[int, nn.Module] = {}
    for name, module in model.get_decoder().named_modules():
        known = type(module).__name__ in TABLE
        if known or _looks_like_attention(module):
            family_of(module)
            blocks[next(int(part) for part in name.split(".") if part.isdigit())] = module
    if not blocks:
        raise ValueError(
            f"{type(model).__name__} has no attention that can be retrofitted: known are {', '.join(TABLE)}"
        )
    return blocks


def _looks_like_attention(module: nn.Module) -> bool:
    return "attention" in type(module).__name__.lower() and any(
        parameter.ndim == 2 for child in module.children() for parameter in child.parameters(recurse=False)
    )


def install(model: Any, settings: RetrofitSettings) -> Retrofit:
    """Put memories that know nothing yet into a model of Transformers.

    Args:
        model: a causal language model; it is changed in place.
        settings: what to build.

    Raises:
        ValueError: for a model that has memories already, an unknown family, or layers that do not exist.
    """
    if is_retrofitted(model):
        raise ValueError("the model is retrofitted already: torchcram.remove(model) gives it back")
    _require_plain(model)
    blocks = attention_blocks(model)
    for name in ("unread", "untouched"):
        if wrong := sorted(set(getattr(settings, name)) - set(blocks)):
            raise ValueError(f"{name} names layers {wrong}: the model has layers 0 to {max(blocks)}")
    retrofit = Retrofit(settings)
    for layer, block in blocks.items():
        own = own_window(block)
        kept = settings.kept if own is None else 0
        reach = Reach(sinks=settings.sinks, window=settings.window, own=own, kept=kept)
        if layer not in settings.untouched and not reach.covers_all:
            enter(block, _memory(model, block, reach, retrofit, reads=layer not in settings.unread))
    model.get_decoder().register_forward_pre_hook(retrofit, with_kwargs=True)
    return retrofit


def _require_plain(model: Any) -> None:
    """Transformers knows one quantization a model; what came from GGUF is quantized no more."""
    quantizer = getattr(model, "hf_quantizer", None)
    method = getattr(getattr(quantizer, "quantization_config", None), "quant_method", None)
    if quantizer is None or method == "torchcram":
        return
    if getattr(method, "value", method) != "gguf":
        raise ValueError(
            f"the model is quantized ({getattr(method, 'value', method)}): load it in bfloat16 or float32, "
            "and retrofit that"
        )
    quantizer.remove_quantization_config(model)


def _memory(model: Any, block: Any, reach: Reach, retrofit: Retrofit, *, reads: bool) -> LayerMemory:
    family = family_of(block)
    size = getattr(block, family.head_size)
    output = getattr(block, family.output)
    weight = output.weight
    # A Conv1D of GPT-2 holds its weight the other way round.
    inputs, width = weight.shape if hasattr(output, "nf") else weight.T.shape
    sizes = {"width": width, "heads": inputs // size, "head_size": size}
    memory = LayerMemory(
        reach=reach,
        semantic=_semantic(retrofit.settings, **sizes),
        router=HarmRouter(**sizes) if reads else None,
        control=retrofit.control,
        keeper=Keeper(width=width, kv_heads=_kv_heads(block, weight, width)) if reach.kept else None,
    )
    return memory.to(weight.device).train(block.training)


def _kv_heads(block: Any, like: Tensor, width: int) -> int:
    """Return how many heads of keys a block has: its projections know."""
    with torch.no_grad():
        _, key, _ = family_of(block).project(block, like.new_zeros(1, 1, width))
    return key.shape[1]


def _semantic(settings: RetrofitSettings, *, width: int, heads: int, head_size: int) -> SemanticMemory:
    sizes = {"width": width, "heads": heads, "head_size": head_size}
    if settings.kind == "low_rank":
        return LowRankRemote(**sizes, rank=settings.rank_for(width))
    return SlotRemote(**sizes, slots=settings.slots) if settings.kind == "slots" else LinearRemote(**sizes)


def is_retrofitted(model: Any) -> bool:
    """Return whether a model has memories."""
    return any(isinstance(module, RetrofittedBlock) for module in model.modules())


def retrofit_of(model: Any) -> Retrofit:
    """Return what all layers of a retrofitted model share.

    Raises:
        ValueError: if it is not retrofitted.
    """
    for hook in model.get_decoder()._forward_pre_hooks.values():
        if isinstance(hook, Retrofit):
            return hook
    raise ValueError(f"{type(model).__name__} is not retrofitted: torchcram.retrofit(model, ...) does it")


def memories(model: Any) -> dict[int, LayerMemory]:
    """Return the memories of a model, by number of the layer."""
    return {
        layer: getattr(block, NAME)
        for layer, block in attention_blocks(model).items()
        if isinstance(block, RetrofittedBlock)
    }


def remove(model: Any) -> Any:
    """Take the memories out of a model, in place; it is the untouched one again, bit for bit.

    Raises:
        ValueError: if it is not retrofitted.
    """
    retrofit, decoder = retrofit_of(model), model.get_decoder()
    for number, hook in list(decoder._forward_pre_hooks.items()):
        if hook is retrofit:
            del decoder._forward_pre_hooks[number]
            decoder._forward_pre_hooks_with_kwargs.pop(number, None)
    for block in attention_blocks(model).values():
        if isinstance(block, RetrofittedBlock):
            leave(block)
    _forget_method(model)
    return model


def _forget_method(model: Any) -> None:
    """Take away what saving and loading note about the method."""
    for owner, names in (
        (model, ("hf_quantizer", "quantization_method", "is_quantized")),
        (model.config, ("quantization_config", "_is_quantized")),
    ):
        for name in names:
            if name in vars(owner):
                delattr(owner, name)


@contextmanager
def reading(
    model: Any, reads: Reads = "routed", *, price: float | None = None, budget: ReadBudget | None = None
) -> Iterator[None]:
    """Let a retrofitted model read everything, what its router wants, or nothing, for a while.

    Args:
        model: retrofitted.
        reads: all, routed or none.
        price: of a read, in nats; the model's own if None.
        budget: bound of the reads of each sequence in every layer.
    """
    control = retrofit_of(model).control
    before = control.reads, control.price, control.budget
    control.reads, control.budget = reads, budget
    control.price = control.price if price is None else price
    try:
        yield
    finally:
        control.reads, control.price, control.budget = before
