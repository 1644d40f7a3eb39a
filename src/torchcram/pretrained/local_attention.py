"""What attention finds nearby: the block itself, run on the last few tokens and the first one of the window.

Much of what attention retrieves lies a few tokens back, and much of the rest is the first token, where heads
rest that look for nothing (Xiao et al. 2023, arXiv 2309.17453). Both fit into a buffer of fixed size, so that
seeing them is no read of the context, at any length. Positions are counted within the
buffer: families that rotate by position only see distances, those with learned positions have them in the
block's input.

A window is cut into pieces; each piece sees the first token, and ``reach`` tokens before it::

    0 [------- 2 reach -------][ reach ]            piece by piece, side by side in one batch
    0             [ reach ][ reach ]
    0                      [ reach ][ reach ]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from torchcram.pretrained.sites import AttentionSite, at_rest, block_input, first_tensor, vocabulary_size


@dataclass(frozen=True, kw_only=True)
class LocalAttention:
    """One block, run on a buffer.

    Attributes:
        module: the block.
        reach: tokens before a piece that it sees, at least; at most twice as many.
        args, kwargs: how the model calls the block on a window of the buffer's size; its input is put in
            their place.
    """

    module: nn.Module
    reach: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def buffer(self) -> int:
        """Tokens that a call sees at most."""
        return 2 * self.reach + 1

    def looked_at(self, tokens: int) -> int:
        """Return how many entries the tokens of a window look at together; attention itself looks at
        ``tokens (tokens + 1) / 2``.
        """
        within = min(tokens, self.buffer)
        behind = sum(self.reach + 2 + place % self.reach for place in range(tokens - within))
        return within * (within + 1) // 2 + behind

    def __call__(self, x: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens width"]:
        """Return the outputs of the block for the tokens of one window, given its inputs.

        None looks at a later token.
        """
        tokens, begin = len(x), self.buffer
        pieces = max(0, -(-(tokens - begin) // self.reach))
        padded = pad(x, (0, 0, 0, begin + pieces * self.reach - tokens))
        around = (
            padded[begin - self.reach :].unfold(0, 2 * self.reach, self.reach).mT
            if pieces
            else x.new_zeros(0, 2 * self.reach, x.shape[1])
        )
        buffers = torch.cat((padded[None, :begin], torch.cat((x[:1].expand(pieces, 1, -1), around), 1)))
        outputs = self._run(buffers)
        return torch.cat((outputs[0], outputs[1:, -self.reach :].flatten(0, 1)))[:tokens]

    def _run(self, buffers: Float[Tensor, "pieces buffer width"]) -> Float[Tensor, "pieces buffer width"]:
        """Call the block as the model would, past its hooks."""
        if "hidden_states" in self.kwargs:
            return first_tensor(self.module.forward(*self.args, **{**self.kwargs, "hidden_states": buffers}))
        return first_tensor(self.module.forward(buffers, *self.args[1:], **self.kwargs))


@torch.no_grad()
def local_attention(model: Any, sites: Sequence[AttentionSite], *, reach: int) -> list[LocalAttention]:
    """Return every block as it runs on a buffer.

    Args:
        model: of Transformers, at rest.
        sites: all of its attention blocks.
        reach: see :class:`LocalAttention`.
    """
    ids = (
        torch.arange(2 * reach + 1, device=model.get_input_embeddings().weight.device) + 1
    ) % vocabulary_size(model)
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    with at_rest(model), _noting(sites, calls):
        model(input_ids=ids[None], use_cache=False)
    return [
        LocalAttention(module=site.module, reach=reach, args=calls[site.name][0], kwargs=calls[site.name][1])
        for site in sites
    ]


@contextmanager
def _noting(
    sites: Sequence[AttentionSite], calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]]
) -> Iterator[None]:
    """Note how each block is called, without its input."""

    def note(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = block_input(args, kwargs)
        calls[name] = (
            tuple(None if value is given else value for value in args),
            {key: None if value is given else value for key, value in kwargs.items()},
        )

    handles = [
        site.module.register_forward_pre_hook(
            lambda module, args, kwargs, name=site.name: note(name, args, kwargs), with_kwargs=True
        )
        for site in sites
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
