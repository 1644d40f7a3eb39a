"""Checkpoints without pickles: model and optimizer as safetensors, everything else as plain numbers in JSON.

Each file carries a checksum of its content: what is damaged is refused, never continued. A checkpoint is a
folder that appears by one rename, so it is there completely or not at all. Works alike for a plain model, DDP
and FSDP2.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from torchcram.runs.files import MEND, draft_of, load_sealed, write_sealed
from torchcram.runs.tensor_file import load_tensors, write_tensors

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
RNG = "rng"


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    write: bool = True,
) -> None:
    """Write a checkpoint; all processes must call it, the one with ``write`` writes.

    Args:
        folder: where; an older checkpoint there is replaced only when the new one is complete.
        model: what to save; the generator state of the process goes along.
        optimizer: after at least one step.
        state: plain numbers, lists and strings.
        write: whether this process writes.

    Raises:
        OSError: if it cannot be written; the older checkpoint is kept.
    """
    weights, moments = _states(model, optimizer)
    if not write:
        return
    draft = draft_of(folder)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        write_tensors(draft / WEIGHTS, _contiguous(weights))
        write_tensors(draft / OPTIMIZER, _flatten(moments["state"]) | {RNG: torch.get_rng_state()})
        write_sealed(draft / STATE, state)
        _put_in_place(draft, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise OSError(
            f"cannot write the checkpoint {folder}: {error}. An older checkpoint is kept: free "
            "some space, then use --resume"
        ) from error


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, expected: Mapping[str, Any]
) -> dict[str, Any]:
    """Load model, optimizer and generator; return the other state.

    Args:
        folder: of the checkpoint.
        model: what to load into; untouched if the checkpoint does not fit.
        optimizer: likewise.
        expected: entries that the state must hold.

    Raises:
        ValueError: if the checkpoint is damaged in any way, or is another model's or another run's.
    """
    folder = find_checkpoint(folder) or folder
    weights, flat = load_tensors(folder / WEIGHTS), load_tensors(folder / OPTIMIZER)
    state = _read_state(folder / STATE)
    for name, value in expected.items():
        if state.get(name) != value:
            raise ValueError(
                f"{folder} is the checkpoint of another run: its {name} is {state.get(name)!r}, "
                f"this run's is {value!r}"
            )
    current, moments = _states(model, optimizer)
    _check_names(folder, current, weights)
    _check_moments(folder, _flatten(moments["state"]), flat)
    torch.set_rng_state(flat.pop(RNG))
    set_model_state_dict(model, dict[str, Any](weights), options=StateDictOptions(full_state_dict=True))
    # Not strict: parameters that had no gradient yet (nothing has been consolidated) have no moments either.
    # torch would give them some, and count a step that they have not taken.
    moments["state"] = _unflatten(flat)
    set_optimizer_state_dict(
        model, optimizer, moments, options=StateDictOptions(full_state_dict=True, strict=False)
    )
    for name, parameter in model.named_parameters():
        if name.removeprefix("module.") not in moments["state"]:
            optimizer.state.pop(parameter, None)
    return state


def find_checkpoint(folder: Path) -> Path | None:
    """Return where the newest checkpoint lies: the usual folder, or the older one if a crash fell between
    the two renames; None without one.
    """
    return next((path for path in (folder, _older(folder)) if path.exists()), None)


def save_weights(file: Path, model: nn.Module) -> None:
    """Write a model's weights, all of them or nothing.

    Raises:
        OSError: if they cannot be written; an older file is kept.
    """
    draft = draft_of(file)
    try:
        write_tensors(draft, _contiguous(model.state_dict()))
        draft.replace(file)
    except (OSError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise OSError(f"cannot write {file}: {error}. Free some space, then use --resume") from error


def load_weights(file: Path, model: nn.Module) -> None:
    """Load a model's weights.

    Raises:
        ValueError: if the file is missing, damaged, or another model's.
    """
    weights = load_tensors(file)
    _check_names(file, model.state_dict(), weights)
    model.load_state_dict(weights)


def load_body(file: Path, model: nn.Module, *, fresh: str) -> None:
    """Load a model's weights but for those whose names begin with ``fresh``, which stay as they are.

    Raises:
        ValueError: if the file is missing, damaged, or another model's.
    """
    weights = {name: value for name, value in load_tensors(file).items() if not name.startswith(fresh)}
    own = {name: value for name, value in model.state_dict().items() if name.startswith(fresh)}
    _check_names(file, model.state_dict(), weights | own)
    model.load_state_dict(weights | own)


def _older(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _put_in_place(draft: Path, folder: Path) -> None:
    # The older checkpoint goes only once there is a newer one under the usual name: at any moment one of the
    # two can be found.
    if folder.exists():
        shutil.rmtree(_older(folder), ignore_errors=True)
        folder.rename(_older(folder))
    draft.rename(folder)
    shutil.rmtree(_older(folder), ignore_errors=True)


def _states(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    return get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def _check_names(place: Path, expected: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> None:
    wrong = sorted(set(expected) ^ set(loaded)) or [
        name for name in expected if not _alike(expected[name], loaded[name])
    ]
    if wrong:
        raise ValueError(
            f"{place} holds the weights of another model: {wrong[0]!r} does not fit ({len(wrong)} "
            "differences)"
        )


def _check_moments(folder: Path, expected: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> None:
    wrong = sorted(
        name
        for name, value in loaded.items()
        if name != RNG and not (name in expected and _alike(expected[name], value))
    )
    if wrong or RNG not in loaded:
        raise ValueError(f"{folder / OPTIMIZER} is another optimizer's: {(wrong or [RNG])[0]!r} does not fit")


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _read_state(file: Path) -> dict[str, Any]:
    try:
        return load_sealed(file)
    except FileNotFoundError:
        raise ValueError(f"{file} is missing: {MEND}") from None


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous().clone() for name, value in tensors.items()}


def _flatten(states: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    return _contiguous(
        {
            f"{name}|{key}": torch.as_tensor(value)
            for name, entry in states.items()
            for key, value in entry.items()
        }
    )


def _unflatten(flat: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    states: dict[str, dict[str, Tensor]] = {}
    for joined, value in flat.items():
        name, key = joined.rsplit("|", 1)
        states.setdefault(name, {})[key] = value
    return states
