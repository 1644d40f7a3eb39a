"""Tensors in a safetensors file that carries a checksum of them in its header: what is damaged is refused.

safetensors checks where tensors lie, not what is in them: a flipped bit would load as another number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from torchcram.runs.files import MEND

SEAL = "sha256"


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write contiguous tensors, and their checksum.

    Raises:
        OSError, SafetensorError: if they cannot be written.
    """
    # safetensors makes files that only their owner may read; others lie beside them that everybody may.
    file.touch()
    mode = file.stat().st_mode
    save_file(dict(tensors), file, metadata={SEAL: checksum(tensors)})
    file.chmod(mode)
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file that :func:`write_tensors` wrote.

    Raises:
        ValueError: if the file is missing, or anything in it has changed; the message names it.
    """
    try:
        with safe_open(file, framework="pt") as handle:
            seal = (handle.metadata() or {}).get(SEAL)
        tensors = load_file(file)
    except FileNotFoundError:
        raise ValueError(f"{file} is missing: {MEND}") from None
    except SafetensorError as error:
        raise ValueError(f"{file} is truncated or no safetensors file ({error}): {MEND}") from None
    if seal != checksum(tensors):
        raise ValueError(f"{file} is damaged, or of another version (its checksum does not fit): {MEND}")
    return tensors


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values."""
    digest = sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
