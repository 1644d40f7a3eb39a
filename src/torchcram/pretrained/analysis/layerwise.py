"""Run a model layer by layer: what stands before the first replaced layer is computed once, and everything
behind it again.

The decoder layers are called with the very arguments that the model itself gives them (masks, rotary
positions); the model's own forward pass embeds and finishes. No layer keeps a trace: the stand-ins are
instance attributes that are deleted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from torchcram.pretrained.sites import SURVEY_TOKENS, AttentionSite, at_rest, first_tensor, vocabulary_size


@dataclass(kw_only=True)
class Calls:
    """The embedded tokens of a window, and how the model calls each decoder layer on them."""

    ids: Int[Tensor, " tokens"]
    embedded: Float[Tensor, "batch tokens width"]
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]


class Layerwise:
    """A model whose decoder layers can be run one by one.

    Args:
        model: of Transformers, at rest (no dropout).
        sites: its attention blocks.

    Raises:
        ValueError: if layer by layer is not the same as the model's forward pass.
    """

    def __init__(self, model: Any, sites: Sequence[AttentionSite]):
        self.model = model
        stack = next(
            (
                name
                for name in _prefixes(sites[0].name)
                if isinstance(model.get_submodule(name), nn.ModuleList)
            ),
            None,
        )
        if stack is None or not all(site.name.startswith(f"{stack}.") for site in sites):
            raise ValueError(
                f"the attention blocks of {type(model).__name__} do not stand in one list of layers"
            )
        self.layers = list(model.get_submodule(stack).children())
        self.layer_of = [int(site.name.removeprefix(f"{stack}.").split(".")[0]) for site in sites]
        self._tuples = False
        ids = (torch.arange(SURVEY_TOKENS) + 1) % vocabulary_size(model)
        with at_rest(model), torch.no_grad():
            self._check(ids.to(model.get_input_embeddings().weight.device))

    def _check(self, ids: Tensor) -> None:
        returned: list[Any] = []
        handle = self.layers[0].register_forward_hook(lambda module, args, output: returned.append(output))
        try:
            expected = self.model(input_ids=ids[None], use_cache=False).logits
        finally:
            handle.remove()
        self._tuples = isinstance(returned[0], tuple)
        calls = self.embed(ids)
        logits = self.logits(self.run(calls.embedded, calls), calls)
        # What overflows does so in both, and is for others to say.
        if not torch.allclose(logits, expected[0], rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ValueError(
                f"{type(self.model).__name__} hands more than hidden states from layer to layer: "
                "the cost of replacing attention cannot be measured"
            )

    def embed(self, ids: Int[Tensor, " tokens"]) -> Calls:
        """Return what the first layer gets, and how each layer is called."""
        arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            arguments.append((args, kwargs))
            return self._wrapped(_entered(args, kwargs))

        with self._standing_in(stand_in):
            getattr(self.model, "base_model", self.model)(input_ids=ids[None], use_cache=False)
        return Calls(ids=ids, embedded=_entered(*arguments[0]), arguments=arguments)

    def run(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        calls: Calls,
        *,
        start: int = 0,
        end: int | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the hidden states behind layer ``end - 1``, given those before layer ``start``."""
        for number in range(start, len(self.layers) if end is None else end):
            args, kwargs = calls.arguments[number]
            if "hidden_states" in kwargs:
                hidden = first_tensor(self.layers[number](*args, **{**kwargs, "hidden_states": hidden}))
            else:
                hidden = first_tensor(self.layers[number](hidden, *args[1:], **kwargs))
        return hidden

    def logits(
        self, hidden: Float[Tensor, "batch tokens width"], calls: Calls
    ) -> Float[Tensor, "tokens vocabulary"]:
        """Return the logits, given the hidden states behind the last layer."""
        with self._standing_in(lambda *args, **kwargs: self._wrapped(hidden)):
            return self.model(input_ids=calls.ids[None], use_cache=False).logits[0]

    def losses(
        self, hidden: Float[Tensor, "batch tokens width"], calls: Calls
    ) -> Float[Tensor, " predictions"]:
        """Return the loss of each next token, in nats."""
        return token_losses(self.logits(hidden, calls), calls.ids)

    def mean_loss(self, windows: Sequence[Int[Tensor, " _"]]) -> float:
        """Return the loss of all next tokens of some windows, in nats per token."""
        losses = []
        for ids in windows:
            calls = self.embed(ids)
            losses.append(self.losses(self.run(calls.embedded, calls), calls))
        return float(torch.cat(losses).double().mean())

    def _wrapped(self, hidden: Tensor) -> Any:
        return (hidden,) if self._tuples else hidden

    @contextmanager
    def _standing_in(self, forward: Callable[..., Any]) -> Iterator[None]:
        before = [vars(layer).get("forward") for layer in self.layers]
        try:
            for layer in self.layers:
                vars(layer)["forward"] = forward
            yield
        finally:
            for layer, own in zip(self.layers, before, strict=True):
                del vars(layer)["forward"]
                if own is not None:
                    vars(layer)["forward"] = own


def token_losses(
    logits: Float[Tensor, "tokens vocabulary"], ids: Int[Tensor, " tokens"]
) -> Float[Tensor, " predictions"]:
    """Return the loss of each next token, in nats."""
    return cross_entropy(logits[:-1].float(), ids[1:], reduction="none")


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _entered(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
