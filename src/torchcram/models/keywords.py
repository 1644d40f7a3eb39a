"""Keywords of ``forward`` beyond its arguments: what Transformers passes to every model, and nothing else.

A keyword that changes nothing here is taken where it says what is so anyway, and refused where it asks for
something else. A misspelt one is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from torch import Tensor

from torchcram.strict import nearest_hint

# Keywords that a model cannot obey: what they may say all the same, and what to do instead.
UNMET = {
    "output_attentions": "there are no attention weights to return: ask for output_routing",
    "output_router_logits": "a CRAM router has no logits of experts: ask for output_routing",
    "skip_logits": "logits are always computed: leave use_liger_kernel off",
}
# How other models are told what is packed. Here position_ids say it.
PACKING = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")


def check_keywords(
    keywords: Mapping[str, Any], method: Callable[..., Any], *, packed_by_position: bool
) -> None:
    """Check that nothing is asked for in vain.

    Args:
        keywords: what was passed beyond the arguments.
        method: what was called.
        packed_by_position: whether position_ids were passed.

    Raises:
        ValueError: for an unknown keyword, naming the nearest argument, and for one that cannot be obeyed.
    """
    for name, value in keywords.items():
        if name in UNMET:
            _require(not value, name, value, UNMET[name])
        elif name == "is_causal":
            _require(value in (None, True), name, value, "the model never looks ahead")
        elif name == "token_type_ids":
            _require(value is None or not _any(value), name, "", "a sequence has no segments: leave it out")
        elif name in PACKING:
            told = value is None or packed_by_position
            _require(told, name, "", "packed sequences are told by position_ids that start anew: pass these")
        else:
            raise ValueError(f"unknown keyword {name!r}: {nearest_hint(name, _arguments(method))}")


def _arguments(method: Callable[..., Any]) -> list[str]:
    named = signature(method).parameters.values()
    return [one.name for one in named if one.name != "self" and one.kind is not Parameter.VAR_KEYWORD]


def _require(met: bool, name: str, value: Any, advice: str) -> None:
    if not met:
        shown = "" if isinstance(value, str) else f" {value}"
        raise ValueError(f"{name}{shown} cannot be obeyed: {advice}")


def _any(value: Any) -> bool:
    return bool(value.any()) if isinstance(value, Tensor) else True
