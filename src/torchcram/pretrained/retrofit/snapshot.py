"""Where a distillation stands, in one file: weights, the optimizer's averages, the best weights so far, and
plain numbers. It is there as a whole or not at all, so that a killed run goes on from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchcram.runs.files import draft_of
from torchcram.runs.tensor_file import load_tensors, write_tensors

NUMBERS = "numbers"
AVERAGES = ("exp_avg", "exp_avg_sq", "step")


def write_snapshot(
    file: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    best: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
) -> None:
    """Write a snapshot; an older one stays until this one is whole.

    Raises:
        OSError: if it cannot be written.
    """
    tensors = {f"now.{name}": parameter.detach() for name, parameter in parameters.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for name, parameter in parameters.items():
        state = optimizer.state.get(parameter, {})
        tensors |= {f"{average}.{name}": state[average] for average in AVERAGES if average in state}
    tensors[NUMBERS] = torch.tensor(list(json.dumps(dict(numbers)).encode()), dtype=torch.uint8)
    draft = draft_of(file)
    try:
        write_tensors(draft, {name: tensor.contiguous() for name, tensor in tensors.items()})
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


@torch.no_grad()
def load_snapshot(
    file: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Put a snapshot into parameters and optimizer; return the best weights, and the numbers.

    Raises:
        ValueError: if it is damaged, or of another model.
    """
    tensors = load_tensors(file)
    if wrong := sorted(name for name in parameters if f"now.{name}" not in tensors):
        raise ValueError(f"{file} holds nothing for {wrong[0]}: delete it, and this stage is done again")
    for name, parameter in parameters.items():
        parameter.copy_(tensors[f"now.{name}"])
        state = {key: tensors[f"{key}.{name}"] for key in AVERAGES if f"{key}.{name}" in tensors}
        if state:
            optimizer.state[parameter] = {key: _placed(state[key], parameter, key) for key in state}
    best = {name: tensors[f"best.{name}"] for name in parameters}
    return best, json.loads(bytes(tensors[NUMBERS].tolist()))


def _placed(tensor: Tensor, parameter: Tensor, key: str) -> Tensor:
    return tensor if key == "step" else tensor.to(parameter.device)
