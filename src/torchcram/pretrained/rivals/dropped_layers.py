"""Layers of attention that are left out, those first that change their input least: LLM-Drop (He et al. 2024,
arXiv 2406.15786).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.install import attention_blocks, memories, reading
from torchcram.pretrained.retrofit.memory import Answered, Asked
from torchcram.pretrained.rivals.contender import Advance, hooked
from torchcram.pretrained.rivals.layers import ReplacedLayers
from torchcram.pretrained.sites import block_input, find_sites, first_tensor


class DroppedLayers(ReplacedLayers):
    """Ranked by the cosine similarity of the residual stream before and behind the attention."""

    name = "dropped layers"
    source = "LLM-Drop, arXiv 2406.15786"

    @torch.no_grad()
    def fit(self, model: Any, windows: Sequence[Tensor], *, advance: Advance) -> None:
        """Measure the similarities, and rank the layers."""
        layers = Layerwise(model, find_sites(model)).layers
        blocks = {layer: attention_blocks(model)[layer] for layer in memories(model)}
        stream: dict[int, Tensor] = {}
        alike = dict.fromkeys(blocks, 0.0)
        handles = [
            layers[layer].register_forward_pre_hook(_noting(stream, layer), with_kwargs=True)
            for layer in blocks
        ]

        def compare(layer: int) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                before = stream[layer]
                alike[layer] += float(cosine_similarity(before, before + first_tensor(output), dim=-1).sum())

            return hook

        try:
            with reading(model, "all"), hooked({block: compare(layer) for layer, block in blocks.items()}):
                for ids in windows:
                    model.base_model(input_ids=ids[None], use_cache=False)
                    advance(len(ids))
        finally:
            for handle in handles:
                handle.remove()
        self.order = sorted(alike, key=alike.__getitem__, reverse=True)

    def heads(self, layer: int, asked: Asked, answered: Answered) -> Tensor:
        """Return nothing."""
        return torch.zeros_like(answered.heads)


def _noting(stream: dict[int, Tensor], layer: int) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        stream[layer] = block_input(args, kwargs)

    return hook
