"""Methods that several claims compare: every mixer as the preset trains it, with its own tuning, and the
sweeps of its price, window or capacity.

Equal tuning: data, steps, batch and schedule are the preset's for all of them; learning rate, and price where
reads have one, are each method's own, the best of the same few trials (:mod:`torchcram.reproduce.tuning`).
"""

from __future__ import annotations

from typing import Any

from torchcram.reproduce.claim import Method
from torchcram.reproduce.tuning import UNPRICED, UNTUNED, tuned

CRAM = tuned(UNTUNED["cram"])
NO_CONSOLIDATION, SEQBOAT, STATIC_ROUTER = (
    tuned(UNTUNED[name]) for name in ("cram_no_consolidation", "seqboat", "static_router")
)
PAPER, MIXTURE_OF_DEPTHS = tuned(UNTUNED["cram_paper"]), tuned(UNTUNED["mixture_of_depths"])
TRANSFORMER, SLIDING_WINDOW, STATIC_HYBRID, SSM = (
    tuned(UNTUNED[name]) for name in UNPRICED if name != "mixture_of_depths"
)

ROUTERS = (NO_CONSOLIDATION, SEQBOAT, MIXTURE_OF_DEPTHS, STATIC_ROUTER)
STATIC = (TRANSFORMER, SLIDING_WINDOW, STATIC_HYBRID, SSM)


def priced(method: Method, price: float) -> Method:
    """Return a method whose reads may cost at most ``price``, in units of the task loss."""
    changes: dict[str, Any] = {
        **method.changes,
        "controller.price_start": min(0.01, price),
        "controller.price_most": price,
    }
    return Method(
        name=f"{method.name}_price{price:g}",
        title=f"{method.title}, price {price:g}",
        changes=changes,
        family=method.family,
        at=price,
    )


def with_option(method: Method, option: str, value: float) -> Method:
    """Return a method with another option of its mixer."""
    changes: dict[str, Any] = {**method.changes, "model.options": {option: value}}
    return Method(
        name=f"{method.name}_{option}{value:g}",
        title=f"{method.title}, {option} {value:g}",
        changes=changes,
        family=method.family,
        at=value,
    )


def changed(
    name: str, title: str, changes: dict[str, Any], *, family: str = "", at: float | None = None
) -> Method:
    """Return CRAM with some fields changed."""
    return Method(name=name, title=title, changes={**CRAM.changes, **changes}, family=family, at=at)


def under(kind: str, task: dict[str, Any], method: Method) -> Method:
    """Return a method on a variant of the task; ``kind`` names the variant."""
    return Method(
        name=f"{kind}_{method.name}", title=f"{kind}, {method.title}", changes={**method.changes, **task}
    )


UNTRACED = {"model.options": {"surprise": False}}
NO_TRACE = changed("no_trace", "no surprise trace", UNTRACED)
