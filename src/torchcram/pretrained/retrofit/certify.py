"""Certify: the highest price of a read at which a model keeps its promise, by conformal risk control over
documents.

The loss of a document is the share of its next tokens, the likeliest ones, that differ from the untouched
model's. The most cautious choice is a price of nothing, where every token reads that may. The prices to try
are chosen on other text, before any document of the calibration is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcram.calibration.choice import choose_shift
from torchcram.calibration.curve import Judgement, RiskCurve, risk_curve
from torchcram.calibration.rule import Rule
from torchcram.calibration.splits import draw_splits, none_certifies, split_study
from torchcram.pretrained.analysis.layerwise import Calls, Layerwise
from torchcram.pretrained.retrofit.certificate import Certificate, Realised
from torchcram.pretrained.retrofit.distil import untouched_states
from torchcram.pretrained.retrofit.drift import mean_harm
from torchcram.pretrained.retrofit.gradients import LOGITS
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.memory import Answered
from torchcram.pretrained.retrofit.processes import ALONE, Processes
from torchcram.pretrained.retrofit.router_fit import predicted_harms

# Of all possible reads, the shares that the prices to try leave on other text.
LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02)
# Price zero, on the scale on which prices are searched: minus the logarithm.
FREE = 1e9


def price_of(shift: float) -> float:
    """Return the price of a read, in nats, of a point on the scale that is searched: it falls as prices
    rise.
    """
    return 0.0 if shift >= FREE else math.exp(-shift)


def prices_to_try(model: Any, select: Sequence[Int[Tensor, " _"]]) -> tuple[float, ...]:
    """Return points on the scale that is searched, the most cautious first: nothing for a read, then prices
    that leave the shares of :data:`LEVELS` on some other text.
    """
    harms = predicted_harms(model, select, price=0.0)
    if not len(harms):
        raise ValueError("no layer of the model reads: there is no price to certify")
    quantiles = [float(harms[min(int(level * len(harms)), len(harms) - 1)]) for level in LEVELS]
    return (FREE, *sorted({-math.log(max(price, 1e-30)) for price in quantiles}, reverse=True))


class DocumentJudge:
    """What each price does to each document, as :func:`torchcram.calibration.curve.risk_curve` asks it.

    Args:
        layerwise: the model.
        documents: tokens.
        processes: that share the documents.
        advance: is told the documents of each finished question.
    """

    def __init__(
        self,
        layerwise: Layerwise,
        documents: Sequence[Int[Tensor, " _"]],
        *,
        processes: Processes = ALONE,
        advance: Callable[[int], None] = lambda documents: None,
    ):
        self.layerwise, self.documents = layerwise, documents
        self.processes, self.advance = processes, advance
        self.untouched: dict[int, Int[Tensor, " tokens"]] = {}

    @torch.no_grad()
    def __call__(self, shift: float, units: Int[Tensor, " units"]) -> Judgement:
        """Judge some documents at a point on the scale."""
        made = []
        for unit in self.processes.mine(units.tolist()):
            loss, reads, possible, route = self._judged(unit, price_of(shift))
            skipped = (possible - reads) / possible if possible else float("nan")
            made.append((loss, skipped, reads, route))
            self.advance(1)
        made = self.processes.joined(made)
        rows = torch.tensor([each[:3] for each in made], dtype=torch.float64).reshape(-1, 3)
        losses, skips, shares = rows.unbind(1)
        routes = tuple(route for *_, route in made)
        return Judgement(losses=losses, skipped=skips, reads=shares, routes=routes)

    def _judged(self, unit: int, price: float) -> tuple[float, float, float, bytes]:
        layerwise, ids = self.layerwise, self.documents[unit]
        if unit not in self.untouched:
            calls, states = untouched_states(layerwise, ids)
            self.untouched[unit] = likeliest(layerwise, calls, states)
        calls = layerwise.embed(ids)
        log, possible = _RouteLog(layerwise.model), _possible(layerwise.model, len(ids))
        with reading(layerwise.model, price=price), log:
            now = likeliest(layerwise, calls, layerwise.run(calls.embedded, calls))
        loss = float((now != self.untouched[unit]).double().mean())
        return loss, log.reads / log.tokens, possible / log.tokens, log.digest.digest()


def likeliest(
    layerwise: Layerwise, calls: Calls, hidden: Float[Tensor, "batch tokens width"]
) -> Int[Tensor, " tokens"]:
    """Return the likeliest next token of each token, given the states behind the last layer."""
    parts = []
    for start in range(0, len(calls.ids), LOGITS):
        piece = slice(start, start + LOGITS)
        short = Calls(ids=calls.ids[piece], embedded=hidden[:, piece], arguments=calls.arguments)
        parts.append(layerwise.logits(hidden[:, piece], short).argmax(-1))
    return torch.cat(parts)


def _possible(model: Any, tokens: int) -> int:
    """Return how many reads a window could make."""
    ranks = torch.arange(tokens)
    reaches = [memory.reach for memory in memories(model).values() if memory.router is not None]
    return sum(int((reach.remote_count(ranks) > 0).sum()) for reach in reaches)


class _RouteLog:
    """What one pass reads, layer by layer."""

    def __init__(self, model: Any):
        self.layers = memories(model)
        self.reads, self.tokens = 0, 0
        self.digest = sha256()
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        self._handles = [memory.register_forward_hook(self._note) for memory in self.layers.values()]

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _note(self, module: Any, args: Any, answered: Answered) -> None:
        used, route = answered.decision.used, answered.decision.route
        self.reads += int(used.sum())
        self.tokens += used.numel()
        self.digest.update(route.to(torch.uint8).cpu().numpy().tobytes())


def document_curve(
    judge: DocumentJudge, shifts: Sequence[float], fails: Callable[[Tensor], bool]
) -> RiskCurve:
    """Return what prices do to documents, up to the first that is too dear."""
    return risk_curve(judge, units=len(judge.documents), shifts=shifts, fails=fails)


def certify(
    layerwise: Layerwise,
    documents: Sequence[Int[Tensor, " _"]],
    select: Sequence[Int[Tensor, " _"]],
    *,
    risks: Sequence[float],
    splits: int = 0,
    generator: torch.Generator | None = None,
    processes: Processes = ALONE,
    advance: Callable[[int], None] = lambda documents: None,
) -> dict[float, Certificate]:
    """Certify some tolerances of one model on the same documents.

    Args:
        layerwise: the model, retrofitted, at rest.
        documents: tokens of the calibration documents, one window each, on which nothing was fitted or
            chosen.
        select: other windows, on which the prices to try are chosen.
        risks: tolerances, each in (0, 1).
        splits: random halves on which to see whether the promise is kept; 0 for none.
        generator: draws the splits.
        processes: that share the documents.
        advance: is told of each document that was judged at a price.

    Raises:
        ValueError: for too few documents, or a tolerance that is none.
    """
    rules = {risk: Rule(risk_tolerance=risk) for risk in risks}
    half = len(documents) // 2
    for rule in rules.values():
        rule.check_units(half if splits else len(documents))
    orders = None
    if splits:
        assert generator is not None, "splits are drawn by a generator"
        orders = draw_splits(len(documents), calibration=half, splits=splits, generator=generator)

    def fails(losses: Tensor) -> bool:
        every = all(rule.fails(losses) for rule in rules.values())
        if orders is None:
            return every
        return every and all(
            none_certifies(rule, orders, calibration=half)(losses) for rule in rules.values()
        )

    judge = DocumentJudge(layerwise, documents, processes=processes, advance=advance)
    curve = document_curve(judge, prices_to_try(layerwise.model, select), fails)
    with torch.no_grad():
        harms = processes.joined([mean_harm(layerwise.model, ids) for ids in processes.mine(documents)])
    longest = max(len(ids) for ids in documents)
    return {
        risk: _certificate(curve, rule, tuple(harms), longest, _realised(curve, rule, orders))
        for risk, rule in rules.items()
    }


def _realised(curve: RiskCurve, rule: Rule, orders: Tensor | None) -> Realised | None:
    if orders is None:
        return None
    half = orders.shape[1] // 2
    study = split_study(curve, rule, orders, calibration=half)
    return Realised(
        splits=study.splits,
        calibration_documents=study.calibration_sequences,
        test_documents=study.test_sequences,
        mean_risk=study.mean_risk,
        standard_error=study.standard_error,
        reads=study.read_rate,
        holds=study.holds,
    )


def _certificate(
    curve: RiskCurve, rule: Rule, harms: tuple[float, ...], longest: int, realised: Realised | None
) -> Certificate:
    choice = choose_shift(curve, rule)
    beyond = choice.next_shift
    return Certificate(
        risk_tolerance=rule.risk_tolerance,
        certified=choice.certified,
        price=price_of(choice.threshold_shift),
        risk=choice.empirical_risk,
        reads=choice.read_rate,
        documents=choice.sequences,
        document_tokens=longest,
        next_price=None if beyond is None else price_of(beyond),
        next_risk=choice.next_risk,
        harms=harms,
        realised=realised,
    )
