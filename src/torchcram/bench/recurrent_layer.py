"""How fast the working memory is, against a recurrent layer of others."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from torchcram.bench.measurement import Measurement
from torchcram.bench.setting import Setting
from torchcram.bench.timing import seconds, take_turns
from torchcram.memory.working import TimeAwareSSM
from torchcram.strict import optional


def recurrent_layer(setting: Setting, length: int) -> Measurement:
    """Our working memory with its gradients against the Mamba-2 layer of Transformers (its PyTorch path):
    batch 8, width 256, 256 numbers of state each.

    The limit is the layer's matrix products alone, with their gradients.
    """
    inputs, gap = setting.randn(8, length, 256).requires_grad_(), torch.ones(8, length, device=setting.device)
    above = setting.randn(8, length, 256)
    ours, theirs = TimeAwareSSM(256, state_size=128).to(setting.device), _mamba2(setting)
    start = ours.init_state(8)
    layers = ((ours, lambda: ours(inputs, gap, start)[0]), (theirs, lambda: theirs(inputs)))
    both = [partial(_layer, layer, function, inputs, above) for layer, function in layers]
    timing = take_turns(*both, rounds=setting.rounds)
    peer = "Mamba2Mixer of Transformers, equal width and state"
    limit = timing.peer_ms / (
        1e3
        * statistics.median(
            sum(map(seconds, _products(setting, ours, 8 * length))) for _ in range(setting.rounds)
        )
    )
    return Measurement(
        question="scan",
        device=setting.name,
        length=length,
        read_rate=None,
        peer=peer,
        timing=timing,
        limit=limit,
    )


def _products(setting: Setting, layer: nn.Module, rows: int) -> list[Callable[[], object]]:
    """Return the matrix products of a layer, each with its two gradients, for so many rows."""
    linear = [part for part in layer.modules() if isinstance(part, nn.Linear)]
    sizes = [
        (setting.randn(rows, part.in_features), setting.randn(rows, part.out_features), part.weight.detach())
        for part in linear
    ]
    return [partial(_product, *size) for size in sizes]


def _product(inputs: Tensor, above: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return inputs @ weight.T, above @ weight, above.T @ inputs


def _layer(layer: nn.Module, function: Callable[[], Tensor], inputs: Tensor, above: Tensor) -> None:
    torch.autograd.backward(function(), above)
    inputs.grad = None
    layer.zero_grad()


def _mamba2(setting: Setting) -> nn.Module:
    optional("transformers", extra="hf")
    from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=256, expand=1, num_heads=4, head_dim=64, state_size=1, n_groups=1, num_hidden_layers=1
    )
    return Mamba2Mixer(config, layer_idx=0).to(setting.device)
