"""Where a causal language model attends: its attention blocks, found by looking at what they compute, not by
a list of names.

A block is taken for attention if its class is called so, it runs once in a forward pass, takes hidden states,
and ends in a linear projection of its heads. What does not look like this is refused, never guessed. Nothing
of the model is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Layer types of Transformers configurations that are no softmax attention, although their class may be called
# attention.
OTHER_LAYERS = ("linear_attention", "mamba", "conv", "moe", "mlp", "recurrent")
SURVEY_TOKENS = 8
FAMILIES = (
    "gpt2, gpt_neox, opt, llama, mistral, qwen2, qwen3, gemma2, phi3, falcon, olmo2, and the "
    "attention layers of jamba"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionSite:
    """One attention block of a model.

    Attributes:
        name: of the block within the model.
        layer: number of its decoder layer.
        module: the block.
        projection: its last part, from the heads side by side to the block's output.
        heads: how many.
        head_size: width of one.
        width: of the block's input and output.
    """

    name: str
    layer: int
    module: nn.Module
    projection: nn.Module
    heads: int
    head_size: int
    width: int

    @torch.no_grad()
    def output_map(self) -> tuple[Float[Tensor, "heads_width width"], Float[Tensor, " width"]]:
        """Return weight and bias of the projection: block output = heads @ weight + bias, whatever class
        it has.
        """
        like = next(self.projection.parameters())
        size = self.heads * self.head_size
        probes = torch.cat((torch.zeros(1, size), torch.eye(size))).to(like.device, like.dtype)
        images = self.projection(probes[None])[0]
        return images[1:].double() - images[0].double(), images[0].double()


@dataclass
class _Calls:
    """What one candidate did in one forward pass."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    children: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off for a while; every part of the model is then in training or
    evaluation mode as before.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def first_tensor(output: Any) -> Any:
    """Return the output of a block that may return a tuple."""
    return output[0] if isinstance(output, tuple) and output else output


def block_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the hidden states that a block was called with: some families pass them by name, some by
    place.
    """
    return kwargs["hidden_states"] if "hidden_states" in kwargs else (args[0] if args else None)


def find_sites(model: Any) -> list[AttentionSite]:
    """Return the attention blocks of a causal language model, first layer first.

    Raises:
        ValueError: if the model is no causal language model, or its attention does not look as described in
            this module.
    """
    config = getattr(model, "config", None)
    if config is None or not callable(getattr(config, "get_text_config", None)):
        raise ValueError(f"{type(model).__name__} is no model of Transformers: it has no configuration")
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} is an encoder-decoder model: only causal (decoder-only) "
            "language models can be analysed"
        )
    candidates = _candidates(model, config.get_text_config())
    calls = _survey(model, candidates)
    sites = [
        _site(name, module, calls[name], model) for name, module in candidates.items() if calls[name].inputs
    ]
    if not sites:
        raise ValueError(
            f"no attention was found in {type(model).__name__}: families known to work are {FAMILIES}"
        )
    return sites


def vocabulary_size(model: Any) -> int:
    """Return the number of tokens that a model of Transformers knows."""
    return int(model.get_input_embeddings().num_embeddings)


def _candidates(model: Any, config: Any) -> dict[str, nn.Module]:
    kinds = list(getattr(config, "layer_types", None) or [])
    named = {
        name: module
        for name, module in model.named_modules()
        if "attention" in type(module).__name__.lower() and next(module.parameters(), None) is not None
    }
    innermost = {
        name: module
        for name, module in named.items()
        if not any(other.startswith(f"{name}.") for other in named)
    }
    return {
        name: module for name, module in innermost.items() if not _is_other_layer(_layer_number(name), kinds)
    }


def _is_other_layer(layer: int, kinds: Sequence[str]) -> bool:
    return layer < len(kinds) and kinds[layer] in OTHER_LAYERS


def _layer_number(name: str) -> int:
    return next((int(part) for part in name.split(".") if part.isdigit()), 0)


def _survey(model: Any, candidates: dict[str, nn.Module]) -> dict[str, _Calls]:
    """Run a few tokens twice, the last one changed in between, and note what the candidates do."""
    size = vocabulary_size(model)
    device = model.get_input_embeddings().weight.device
    ids = (torch.arange(SURVEY_TOKENS, device=device) + 1) % size
    changed = torch.cat((ids[:-1], (ids[-1:] + 1) % size))
    calls = {name: _Calls() for name in candidates}
    with at_rest(model), torch.no_grad():
        with _watched(candidates, calls):
            before = model(input_ids=ids[None], use_cache=False).logits
        after = model(input_ids=changed[None], use_cache=False).logits
    if not torch.allclose(before[:, :-1], after[:, :-1], rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ValueError(
            f"{type(model).__name__} looks at later tokens: only causal language models can be analysed"
        )
    return calls


@contextmanager
def _watched(candidates: dict[str, nn.Module], calls: dict[str, _Calls]) -> Iterator[None]:
    handles = []
    try:
        for name, module in candidates.items():
            handles.append(module.register_forward_hook(_note_block(calls[name]), with_kwargs=True))
            handles += [
                child.register_forward_hook(_note_child(calls[name]))
                for child in module.modules()
                if child is not module
            ]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note_block(calls: _Calls) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.inputs.append(block_input(args, kwargs))
        calls.outputs.append(first_tensor(output))

    return hook


def _note_child(calls: _Calls) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            calls.children.append((module, args[0], output))

    return hook


def _site(name: str, module: nn.Module, calls: _Calls, model: Any) -> AttentionSite:
    def refuse(why: str) -> ValueError:
        return ValueError(
            f"{type(model).__name__}: the attention {name!r} ({type(module).__name__}) {why}; "
            f"families known to work are {FAMILIES}"
        )

    if len(calls.inputs) != 1:
        raise refuse(f"runs {len(calls.inputs)} times in one pass (shared between layers)")
    given, output = calls.inputs[0], calls.outputs[0]
    if (
        not isinstance(given, Tensor)
        or not isinstance(output, Tensor)
        or given.ndim != 3
        or given.shape != output.shape
    ):
        raise refuse("does not turn hidden states into hidden states of the same shape")
    alike = [
        (child, entered, left)
        for child, entered, left in calls.children
        if _projects(child) and left.shape == output.shape
    ]
    ends = [
        (child, entered) for child, entered, left in alike if torch.allclose(left, output, equal_nan=True)
    ]
    if not ends:
        raise refuse("does not end in a linear projection of its heads")
    projection, entered = ends[0]
    config: Any = getattr(module, "config", None) or model.config
    heads = int(config.get_text_config().num_attention_heads)
    if entered.shape[-1] % heads:
        raise refuse(f"has {entered.shape[-1]} channels, not a multiple of its {heads} heads")
    size = entered.shape[-1] // heads
    return AttentionSite(
        name=name,
        layer=_layer_number(name),
        module=module,
        projection=projection,
        heads=heads,
        head_size=size,
        width=given.shape[-1],
    )


def _projects(child: nn.Module) -> bool:
    return any(parameter.ndim == 2 for parameter in child.parameters(recurse=False))
