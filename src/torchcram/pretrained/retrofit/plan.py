"""How much text a retrofit takes in the minutes that it is given."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchcram.calibration.rule import Rule
from torchcram.pretrained.texts import Window
from torchcram.strict import StrictConfig

# Windows that choose, that the routers learn from, and that are judged at the end.
SELECT, REFIT, ROUTE, JUDGED = 4, 12, 8, 4
# Fewest windows to fit on.
FEWEST = 4
# Costs in forward passes of a window: with statistics, without reads as well, with gradients of every layer.
FIT_COST, REFIT_COST, GRADIENT_COST = 1.4, 2.4, 3.0
# Passes that the price and the judgement take.
REST = 8 * SELECT + 5 * JUDGED
# A step of the distillation: the untouched model, the taught one, back, and all their logits.
STEP_COST = 5.0
# Minutes up to which nothing is distilled, and the share of more of them that the closed form gets.
CLOSED_MINUTES, CLOSED_SHARE = 10.0, 0.3
# What follows a distillation, in passes: looks at select text, the routers' second fit, layers given up.
AFTER = 30 * SELECT + GRADIENT_COST * ROUTE
# Below so few steps a distillation teaches nothing.
FEWEST_STEPS = 20
# Passes over a document that certifies, share of the minutes that these may take, and most documents.
PRICES, CERTIFY_SHARE, MOST_DOCUMENTS = 12.0, 0.25, 200


class Plan(StrictConfig):
    """Numbers of windows.

    Attributes:
        fit: for semantic memory.
        select: that choose strengths and the price.
        refit: of the fit windows.
        route: for the routers, of the fit windows.
        judged: of the test split.
        distil: steps of the distillation; 0 for none.
        certify: documents that certify; 0 for none.
    """

    fit: int
    select: int
    refit: int
    route: int
    judged: int
    distil: int = 0
    certify: int = 0


@torch.no_grad()
def seconds_of(model: Any, ids: Tensor) -> float:
    """Return what a forward pass takes; the first one, which warms up, does not count."""
    begin = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        model.base_model(input_ids=ids[None], use_cache=False)
    return time.perf_counter() - begin


def plan_for(
    *,
    minutes: float,
    seconds: float,
    fit: Sequence[Tensor],
    select: Sequence[Tensor],
    test: Sequence[Tensor],
    documents: Sequence[Tensor] = (),
    needed: int = 0,
    processes: int = 1,
) -> Plan:
    """Return what fits into the minutes.

    Args:
        minutes: in all.
        seconds: of a forward pass over a window.
        fit: windows that there are.
        select: alike.
        test: alike.
        documents: alike, to certify with.
        needed: documents without which nothing can be certified.
        processes: that share the windows; each has one of every kind at least.

    Raises:
        ValueError: if the text is too short.
    """
    fewest = max(FEWEST, processes)
    if len(fit) < fewest or min(len(select), len(test)) < processes:
        raise ValueError(
            f"the text is too short: there are {len(fit)} windows to fit on, {len(select)} to select and "
            f"{len(test)} to judge, and {fewest}, {processes} and {processes} are needed; give more text, or "
            "a smaller context" + (", or start fewer processes" if processes > 1 else "")
        )
    chosen, behind, routed = (
        min(max(wanted, processes), len(windows))
        for wanted, windows in ((SELECT, select), (REFIT, fit), (ROUTE, fit))
    )
    seconds = seconds / processes
    certify = _certified(len(documents), needed, passes=60 * minutes / seconds)
    passes = 60 * minutes / seconds - PRICES * certify
    closed = min(passes, max(60 * CLOSED_MINUTES / seconds, CLOSED_SHARE * passes))
    left = closed - GRADIENT_COST * (chosen + routed) - REFIT_COST * behind - REST
    return Plan(
        fit=min(len(fit), max(fewest, int(left / FIT_COST))),
        select=chosen,
        refit=behind,
        route=routed,
        judged=min(max(JUDGED, processes), len(test)),
        distil=_steps((passes - closed) / processes),
        certify=certify,
    )


def _certified(documents: int, needed: int, *, passes: float) -> int:
    """Return how many documents certify: half as many again as are needed, more if there is time."""
    if not needed:
        return 0
    wanted = max(needed + (needed + 1) // 2, int(CERTIFY_SHARE * passes / PRICES))
    return min(documents, wanted, MOST_DOCUMENTS)


def _steps(passes: float) -> int:
    """Return how many steps of a distillation fit into so many passes."""
    steps = int((passes - AFTER) / STEP_COST)
    return steps if steps >= FEWEST_STEPS else 0


def set_aside(windows: Sequence[Window], most: int) -> tuple[list[Window], list[Window]]:
    """Return the windows that are left to fit on, and one window of each document that is set aside.

    Args:
        windows: of the fit split.
        most: documents to set aside; half of them at most are.
    """
    documents = list(dict.fromkeys(window.document for window in windows))
    chosen = set(documents[len(documents) - min(most, len(documents) // 2) :])
    first: dict[int, Window] = {}
    for window in windows:
        if window.document in chosen:
            first.setdefault(window.document, window)
    return [window for window in windows if window.document not in chosen], list(first.values())


def require_documents(documents: int, rule: Rule) -> None:
    """Raise ValueError where so few documents can certify nothing."""
    if documents < rule.units_needed:
        raise ValueError(
            f"a risk of {rule.risk_tolerance:g} takes {rule.units_needed} documents that nothing is fitted "
            f"to, and {documents} can be set aside: give about {2.5 * rule.units_needed:.0f} documents in "
            "all, or a larger risk"
        )
