"""How much text a retrofit takes in the minutes that it is given."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchcram.strict import StrictConfig

# Windows that choose, that the routers learn from, and that are judged at the end.
SELECT, REFIT, ROUTE, JUDGED = 4, 12, 8, 4
# Fewest windows to fit on.
FEWEST = 4
# Costs in forward passes of a window: with statistics, without reads as well, with gradients of every layer.
FIT_COST, REFIT_COST, GRADIENT_COST = 1.4, 2.4, 3.0
# Passes that the price and the judgement take.
REST = 8 * SELECT + 5 * JUDGED


class Plan(StrictConfig):
    """Numbers of windows.

    Attributes:
        fit: for semantic memory.
        select: that choose strengths and the price.
        refit: of the fit windows.
        route: for the routers, of the fit windows.
        judged: of the test split.
    """

    fit: int
    select: int
    refit: int
    route: int
    judged: int


@torch.no_grad()
def seconds_of(model: Any, ids: Tensor) -> float:
    """Return what a forward pass takes; the first one, which warms up, does not count."""
    begin = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        model.base_model(input_ids=ids[None], use_cache=False)
    return time.perf_counter() - begin


def plan_for(
    *, minutes: float, seconds: float, fit: Sequence[Tensor], select: Sequence[Tensor], test: Sequence[Tensor]
) -> Plan:
    """Return what fits into the minutes.

    Args:
        minutes: in all.
        seconds: of a forward pass over a window.
        fit: windows that there are.
        select: alike.
        test: alike.

    Raises:
        ValueError: if the text is too short.
    """
    if len(fit) < FEWEST or not select or not test:
        raise ValueError(
            f"the text is too short: there are {len(fit)} windows to fit on, {len(select)} to select and "
            f"{len(test)} to judge, and {FEWEST}, 1 and 1 are needed; give more text, or a smaller context"
        )
    chosen, behind, routed = min(SELECT, len(select)), min(REFIT, len(fit)), min(ROUTE, len(fit))
    left = 60 * minutes / seconds - GRADIENT_COST * (chosen + routed) - REFIT_COST * behind - REST
    return Plan(
        fit=min(len(fit), max(FEWEST, int(left / FIT_COST))),
        select=chosen,
        refit=behind,
        route=routed,
        judged=min(JUDGED, len(test)),
    )
