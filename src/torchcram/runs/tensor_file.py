"""Tensors in a safetensors file that carries a checksum of them in its header: what is damaged is refused.

safetensors checks where tensors lie, not what is in them: a flipped bit would load as another number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
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


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file that :func:`write_tensors` wrote.

    Raises:
        ValueError: if the file is missing, or anything in it has changed; the message names it.
    """
    try:
        # Not by the file's name, which safetensors wants to be UTF-8.
        content = file.read_bytes()
        tensors = load(content)
    except FileNotFoundError:
        raise ValueError(f"{file} is missing: {MEND}") from None
    except SafetensorError as error:
        raise ValueError(f"{file} is truncated or no safetensors file ({error}): {MEND}") from None
    if _seal(content) != checksum(tensors):
        raise ValueError(f"{file} is damaged, or of another version (its checksum does not fit): {MEND}")
    return tensors


def _seal(content: bytes) -> str | None:
    """Return the checksum in a header: its length in eight bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return metadata.get(SEAL)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values."""
    digest = sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
