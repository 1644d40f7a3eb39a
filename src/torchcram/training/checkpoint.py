"""Checkpoints without pickles: model and optimizer as safetensors, everything else as plain numbers in JSON.

A checkpoint is a folder that appears by one rename, so it is there completely or not at all. Works alike for a plain model, DDP and FSDP2.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, write: bool = True) -> None:
    """Write a checkpoint; all processes must call it, the one with ``write`` writes.

    Args:
        folder: where; an older checkpoint there is replaced only when the new one is complete.
        model, optimizer: what to save; the generator state of the process goes along.
        state: plain numbers, lists and strings.
        write: whether this process writes.
    """
    weights, moments = get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not write:
        return
    draft, old = folder.with_name(f".{folder.name}.draft"), folder.with_name(f".{folder.name}.old")
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        save_file(_contiguous(weights), draft / WEIGHTS)
        save_file(_flatten(moments["state"]) | {"rng": torch.get_rng_state()}, draft / OPTIMIZER)
        (draft / STATE).write_text(json.dumps(state))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise OSError(f"cannot write the checkpoint {folder}: {error}. The previous checkpoint is kept; free some space and use --resume") from error
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load model, optimizer and generator; return the other state.

    Raises:
        ValueError: if the checkpoint is truncated, or is another model's.
    """
    folder = complete_checkpoint(folder) or folder
    weights, flat = _read(folder / WEIGHTS), _read(folder / OPTIMIZER)
    torch.set_rng_state(flat.pop("rng"))
    current, moments = get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True))
    _check_names(folder, current, weights)
    for name, value in _flatten(moments["state"]).items():
        if name in flat and flat[name].shape != value.shape:
            raise ValueError(f"{folder / OPTIMIZER} is from another optimizer: {name} has shape {tuple(flat[name].shape)}, expected {tuple(value.shape)}")
    moments["state"] = _unflatten(flat)
    set_state_dict(
        model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=StateDictOptions(full_state_dict=True)
    )
    return _read_state(folder / STATE)


def save_weights(file: Path, model: nn.Module) -> None:
    """Write a model's weights, all of them or nothing."""
    draft = file.with_name(f".{file.name}.draft")
    save_file(_contiguous(model.state_dict()), draft)
    draft.replace(file)


def load_weights(file: Path, model: nn.Module) -> None:
    """Load a model's weights.

    Raises:
        ValueError: if the file is missing, truncated, or another model's.
    """
    weights = _read(file)
    _check_names(file, model.state_dict(), weights)
    model.load_state_dict(weights)


def complete_checkpoint(folder: Path) -> Path | None:
    """Return the folder of the newest complete checkpoint: the usual one, or the older one if a crash fell between the two renames."""
    old = folder.with_name(f".{folder.name}.old")
    return next((path for path in (folder, old) if (path / STATE).exists()), None)


def _check_names(folder: Path, expected: dict[str, Any], found: dict[str, Tensor]) -> None:
    wrong = sorted(set(expected) ^ set(found)) or [name for name in found if found[name].shape != expected[name].shape]
    if wrong:
        raise ValueError(f"{folder} holds the weights of another model: {wrong[0]!r} does not fit ({len(wrong)} differences)")


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except FileNotFoundError:
        raise ValueError(f"there is no {file}: the run has no checkpoint yet, or it was deleted") from None
    except SafetensorError as error:
        raise ValueError(f"{file} is truncated or no safetensors file ({error}): delete the checkpoint, and start again or from a copy") from None


def _read_state(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged ({error}): delete the checkpoint, and start again or from a copy") from None


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous().clone() for name, value in tensors.items()}


def _flatten(states: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return _contiguous({f"{name}|{key}": torch.as_tensor(value) for name, entry in states.items() for key, value in entry.items()})


def _unflatten(flat: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    states: dict[str, dict[str, Tensor]] = {}
    for joined, value in flat.items():
        name, key = joined.rsplit("|", 1)
        states.setdefault(name, {})[key] = value
    return states
