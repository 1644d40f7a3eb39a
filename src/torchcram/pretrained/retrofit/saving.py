"""A retrofitted model on disk: a whole folder for ``from_pretrained``, or the small adapter alone, which
names the model that it belongs to.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchcram.pretrained.retrofit.block import NAME
from torchcram.pretrained.retrofit.install import install, is_retrofitted, remove, retrofit_of
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.runs.files import load_json, write_json, write_text
from torchcram.runs.tensor_file import load_tensors, write_tensors

WEIGHTS, DESCRIPTION = "adapter.safetensors", "retrofit.json"


def base_digest(model: Any) -> str:
    """Return a digest of the weights of the untouched model, whether it is retrofitted or not."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not _ours(name):
            sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _ours(name: str) -> bool:
    return f".{NAME}." in name


def memory_state(model: Any) -> dict[str, Tensor]:
    """Return the tensors of the memories, by their names in the model."""
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items() if _ours(name)}


def save_retrofit(
    model: Any, tokenizer: Any, folder: str | Path, *, further: Mapping[str, str | bytes] | None = None
) -> Path:
    """Write a folder that ``AutoModelForCausalLM.from_pretrained`` loads after ``import torchcram``.

    All of it or nothing: it is written beside its place and then renamed.

    Args:
        model: retrofitted.
        tokenizer: saved with it; None for none.
        folder: must not be there yet.
        further: files to put beside, by name: text, or bytes as they are.

    Raises:
        ValueError: if the folder is there, or the model is not retrofitted.
        OSError: if it cannot be written; nothing is left.
    """
    from torchcram.pretrained.retrofit.quantizer import RetrofitConfig

    place = Path(folder)
    retrofit = retrofit_of(model)
    if place.exists():
        raise ValueError(f"{place} exists: choose another folder, or delete it")
    model.config.quantization_config = RetrofitConfig(
        settings=retrofit.settings.model_dump(mode="json"), base=retrofit.base
    )
    draft = place.with_name(f".{place.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        model.save_pretrained(draft)
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        for name, content in (further or {}).items():
            if isinstance(content, bytes):
                (draft / name).write_bytes(content)
            else:
                write_text(draft / name, content)
        draft.replace(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def save_adapter(model: Any, folder: str | Path) -> Path:
    """Write the memories alone, with settings, and name and digest of the model that they belong to.

    Raises:
        ValueError: if the model is not retrofitted.
    """
    retrofit, place = retrofit_of(model), Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    draft = place / f".{WEIGHTS}.draft"
    write_tensors(draft, memory_state(model))
    draft.replace(place / WEIGHTS)
    base = retrofit.base or {"name": str(model.config.name_or_path), "digest": base_digest(model)}
    write_json(place / DESCRIPTION, {"settings": retrofit.settings.model_dump(mode="json"), "base": base})
    return place


def load_adapter(model: Any, folder: str | Path) -> Any:
    """Put saved memories into the untouched model that they were made for, in place.

    Raises:
        ValueError: if there is no adapter, it is damaged or of another format, or the model is another one.
    """
    place = Path(folder)
    if not (place / DESCRIPTION).is_file():
        raise ValueError(f"{place} holds no adapter: there is no {DESCRIPTION}")
    description = load_json(place / DESCRIPTION)
    settings = RetrofitSettings.parse(description["settings"])
    if is_retrofitted(model):
        raise ValueError("the model is retrofitted already: torchcram.remove(model) gives it back")
    base = description["base"]
    if base_digest(model) != base["digest"]:
        raise ValueError(
            f"the adapter was made for other weights than these ({base['name']}, {base['digest'][:12]}): "
            "load that very model, in the precision it had"
        )
    install(model, settings).base = base
    try:
        load_memories(model, load_tensors(place / WEIGHTS))
    except ValueError as error:
        remove(model)
        raise ValueError(f"{place / WEIGHTS} is damaged ({error})") from None
    return model


def load_memories(model: Any, state: dict[str, Tensor]) -> None:
    """Load the tensors of all memories of a retrofitted model.

    Raises:
        ValueError: if some are missing, unknown, or of another shape.
    """
    own = memory_state(model)
    if wrong := sorted(own.keys() ^ state.keys()):
        raise ValueError(f"{len(wrong)} tensors are missing or unknown, the first is {wrong[0]}")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ValueError(f"{name} has the shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}")
    model.load_state_dict(state, strict=False)
