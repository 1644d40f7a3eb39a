"""Methods that several claims compare: every mixer as the preset trains it, and the sweeps of its price or budget.

Equal tuning: data, steps, batch, schedule and learning rates are the preset's for all of them; nothing is tuned for any one.
"""

from __future__ import annotations

from typing import Any

from torchcram.reproduce.claim import Method

CRAM = Method(name="cram", title="CRAM", changes={}, family="CRAM")
NO_CONSOLIDATION = Method(
    name="cram_no_consolidation", title="CRAM without consolidation", changes={"model.mixer": "cram_no_consolidation"}, family="CRAM without consolidation"
)
SEQBOAT = Method(name="seqboat", title="SeqBoat", changes={"model.mixer": "seqboat"}, family="SeqBoat")
MIXTURE_OF_DEPTHS = Method(name="mixture_of_depths", title="Mixture-of-Depths", changes={"model.mixer": "mixture_of_depths"}, family="Mixture-of-Depths")
STATIC_ROUTER = Method(name="static_router", title="learned static router", changes={"model.mixer": "static_router"}, family="learned static router")
PAPER = Method(
    name="cram_paper",
    title="CRAM by the letter of the paper",
    changes={"model.mixer": "cram_paper", "controller.acquire_steps": 0, "controller.caution_start": 0.0},
)
TRANSFORMER = Method(name="transformer", title="dense Transformer", changes={"model.mixer": "transformer"})
SLIDING_WINDOW = Method(name="sliding_window", title="sliding window of 64", changes={"model.mixer": "sliding_window"}, family="sliding window")
STATIC_HYBRID = Method(name="static_hybrid", title="static hybrid", changes={"model.mixer": "static_hybrid"}, family="static hybrid")
SSM = Method(name="ssm", title="recurrence alone", changes={"model.mixer": "ssm"})

ROUTERS = (NO_CONSOLIDATION, SEQBOAT, MIXTURE_OF_DEPTHS, STATIC_ROUTER)
STATIC = (TRANSFORMER, SLIDING_WINDOW, STATIC_HYBRID, SSM)


def priced(method: Method, price: float) -> Method:
    """Return a method whose reads may cost at most ``price``, in units of the task loss."""
    changes: dict[str, Any] = {**method.changes, "controller.price_start": min(0.1, price), "controller.price_most": price}
    return Method(name=f"{method.name}_price{price:g}", title=f"{method.title}, price {price:g}", changes=changes, family=method.family, at=price)


def with_option(method: Method, option: str, value: float) -> Method:
    """Return a method with another option of its mixer."""
    changes: dict[str, Any] = {**method.changes, "model.options": {option: value}}
    return Method(name=f"{method.name}_{option}{value:g}", title=f"{method.title}, {option} {value:g}", changes=changes, family=method.family, at=value)


def changed(name: str, title: str, changes: dict[str, Any], *, family: str = "", at: float | None = None) -> Method:
    """Return CRAM with some fields changed."""
    return Method(name=name, title=title, changes=changes, family=family, at=at)
