"""A model and its tokenizer from a Hub id, a folder, or a GGUF file; too large a model is refused before
it is loaded.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError

from torchcram.strict import optional, require_choice

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What the readers of configurations, weights, tokenizers and GGUF files raise where these are cut off.
UNREADABLE = (OSError, ValueError, KeyError, IndexError, EOFError, struct.error, SafetensorError)
# Room for statistics and activations, over the weights.
ROOM = 1.5


def load_model(name: str, *, dtype: str = "float32") -> tuple[Any, Any]:
    """Return a causal language model in evaluation mode, and its tokenizer.

    Args:
        name: Hub id, folder, or GGUF file.
        dtype: float32, bfloat16 or float16.

    Raises:
        ImportError: naming the extra, if Transformers is not installed.
        ValueError: if there is no such model, or it does not fit in memory.
    """
    transformers = optional("transformers", extra="hf")
    precision = DTYPES[require_choice("dtype", dtype, DTYPES)]
    place, options = _place(name)
    try:
        parameters = _parameters(transformers.AutoConfig.from_pretrained(place, **options))
    except UNREADABLE as error:
        raise _unloadable(name, error) from None
    require_memory(name, parameters, precision)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=precision, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
    except UNREADABLE as error:
        raise _unloadable(name, error) from None
    return model.eval(), tokenizer


def _unloadable(name: str, error: Exception) -> ValueError:
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"cannot load {name!r}: {_hint(name)} ({said})")


def _place(name: str) -> tuple[str, dict[str, str]]:
    path = Path(name)
    if path.suffix != ".gguf":
        return name, {}
    if not path.is_file():
        raise ValueError(f"there is no GGUF file {name}")
    optional("gguf", extra="gguf")
    return str(path.parent), {"gguf_file": path.name}


def _hint(name: str) -> str:
    if Path(name).suffix == ".gguf":
        return "the file is cut off or damaged, or its architecture is unknown to Transformers"
    if Path(name).exists():
        return "the folder holds no complete model of Transformers (config.json, weights, tokenizer)"
    return (
        "there is no such folder, and it cannot be fetched from the Hub; without a connection, "
        "download it elsewhere (hf download ID) and name the folder"
    )


def _parameters(config: Any) -> int:
    """Count the parameters of a model without making it."""
    transformers = optional("transformers", extra="hf")
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def require_memory(name: str, parameters: int, dtype: torch.dtype) -> None:
    """Raise ValueError, with the estimate, if a model of so many parameters and its statistics do not fit
    into the free memory.
    """
    needed, free = ROOM * parameters * dtype.itemsize / 2**30, psutil.virtual_memory().available / 2**30
    if needed > free:
        word = str(dtype).removeprefix("torch.")
        raise ValueError(
            f"{name} has {parameters:,} parameters: with statistics it needs about {needed:.1f} GiB in "
            f"{word}, and {free:.1f} GiB are free; use a machine with more memory"
            + ("" if dtype.itemsize == 2 else ", or --dtype bfloat16")
        )
