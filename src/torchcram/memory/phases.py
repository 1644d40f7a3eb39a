"""The life of a pattern as numbers: acquire, consolidate, mature. No tensors, no model.

    acquire        every token reads, until the smoothed loss has plateaued
    consolidate    the router decides; a read's price climbs while routed loss <= (1 + tolerance) reference
    mature         the read rate has settled; if it rises again, the model consolidates again

Who leads a model by these rules is :class:`torchcram.memory.consolidator.Consolidator`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pydantic import Field, model_validator

from torchcram.strict import LATER, StrictConfig

Phase = Literal["acquire", "consolidate", "mature"]


class ConsolidationRules(StrictConfig):
    """How a model is led through the phases.

    Attributes:
        acquire_steps: longest acquisition; None for as long as the loss still falls.
        shortest_acquisition: steps before which acquisition cannot end.
        plateau_steps, plateau_gain: acquisition ends when the smoothed loss has gained less than this share
            within so many steps.
        settled_loss: losses below this are taken for this: what is so small neither gains by learning on, nor
            suffers by routing. In units of the task loss.
        acquisition_price: price of a read, for the router alone, while every token reads anyway.
        acquisition_routers: whether routers learn while every token reads; if not, they stay open until then.
        price_start, price_most, price_growth: price of a read when routing begins, its bound, and its factor
            per step while quality holds.
        steady_price: whether the price pulls undiminished where a router is sure of a read. A token then
            reads where it gains twice the price. For routers that end up reading everything.
        caution_start, caution_fall: logits added to the familiarity threshold when routing begins (semantic
            memory learns, but does not answer yet), and how many are taken off at each step until quality
            first breaks.
        caution_step: how many are taken off at each step from then on while quality holds; twice as many are
            added back when it does not.
        loss_tolerance: quality holds while the routed loss exceeds the reference by at most this share.
        reference_every: every so many steps the reference is measured, on the same batch and with the same
            weights: the smaller of the losses with all reads forced, and with a read for every token in need
            (semantic memory silent). A routed model may have forgotten how to use reads that it never makes,
            so the first alone would excuse too much.
        exploration: share of the tokens that would not read whose retrieval is computed all the same.
        mature_steps, mature_change: the model is mature when, within so many steps, its smoothed read rate
            has changed by less than this share, and caution by less than this share of its start.
    """

    acquire_steps: int | None = Field(None, ge=0)
    shortest_acquisition: int = Field(100, ge=0)
    plateau_steps: int = Field(100, ge=1)
    plateau_gain: float = Field(0.05, gt=0.0, lt=1.0)
    settled_loss: float = Field(0.01, ge=0.0, json_schema_extra=LATER)
    acquisition_price: float = Field(0.0, ge=0.0, json_schema_extra=LATER)
    acquisition_routers: bool = Field(True, json_schema_extra=LATER)
    price_start: float = Field(0.01, ge=0.0)
    price_most: float = Field(0.3, ge=0.0)
    price_growth: float = Field(1.03, ge=1.0)
    steady_price: bool = Field(False, json_schema_extra=LATER)
    caution_start: float = Field(5.0, ge=0.0)
    caution_fall: float = Field(0.04, ge=0.0)
    caution_step: float = Field(0.01, ge=0.0)
    loss_tolerance: float = Field(0.1, ge=0.0)
    reference_every: int = Field(25, ge=1)
    exploration: float = Field(0.02, ge=0.0, le=1.0)
    mature_steps: int = Field(300, ge=1)
    mature_change: float = Field(0.1, gt=0.0)

    @model_validator(mode="after")
    def _check_prices(self) -> ConsolidationRules:
        if self.price_start > self.price_most:
            raise ValueError(f"price_start {self.price_start} is larger than price_most {self.price_most}")
        return self


@dataclass
class Phases:
    """Decides what each training step may read.

    All of its state is plain numbers, saved with every checkpoint.

    Attributes:
        rules: what they follow.
        phase: where the model stands.
        price: current price of a read.
        caution: logits added to the familiarity threshold.
        careful: whether quality has broken since routing began, so that caution falls in small steps.
        acquired_at, matured_at: steps at which the later phases began, or None.
        dense_loss, routed_loss: smoothed reference loss, and routed loss on the same batches.
    """

    rules: ConsolidationRules
    phase: Phase = "acquire"
    price: float = 0.0
    caution: float = 0.0
    careful: bool = False
    acquired_at: int | None = None
    matured_at: int | None = None
    smooth_loss: float | None = None
    best_loss: float = float("inf")
    best_step: int = 0
    dense_loss: float | None = None
    routed_loss: float | None = None
    read_rate: float | None = None
    settled_rate: float = 1.0
    settled_caution: float = 0.0
    settled_step: int = 0

    def wants_reference(self, step: int) -> bool:
        """Whether the reference should be measured at this step."""
        return self.phase != "acquire" and step % self.rules.reference_every == 0

    def observe_reference(self, reference: float, *, routed: float) -> None:
        """Take note of the reference loss and of the routed loss on the same batch: paired, so that the
        batch's own difficulty cancels.
        """
        self.dense_loss = _smooth(self.dense_loss, reference, 0.5)
        self.routed_loss = _smooth(self.routed_loss, routed, 0.5)

    def harder_from(self, step: int) -> None:
        """Forget the losses so far: from this step on the sequences are longer, and their loss begins
        higher.
        """
        self.smooth_loss, self.best_loss, self.best_step = None, float("inf"), step

    def observe(self, step: int, *, loss: float, read_rate: float) -> None:
        """Take note of a training step: its task loss and its any-layer read rate."""
        if self.phase == "acquire":
            self._acquire(step, loss)
        else:
            self._consolidate(step, read_rate)

    def _acquire(self, step: int, loss: float) -> None:
        rules = self.rules
        self.smooth_loss = _smooth(self.smooth_loss, loss, 0.05)
        loss = max(self.smooth_loss, rules.settled_loss)
        if loss < (1 - rules.plateau_gain) * self.best_loss:
            self.best_loss, self.best_step = loss, step
        plateau = step - self.best_step >= rules.plateau_steps and step >= rules.shortest_acquisition
        if plateau or (rules.acquire_steps is not None and step + 1 >= rules.acquire_steps):
            self.begin_routing(step)

    def begin_routing(self, step: int) -> None:
        """End acquisition with this step: from the next one on the router decides."""
        self.phase, self.acquired_at = "consolidate", step + 1
        self.price, self.caution = self.rules.price_start, self.rules.caution_start
        self.settled_step = step

    def _consolidate(self, step: int, read_rate: float) -> None:
        rules = self.rules
        if self.dense_loss is not None and self.routed_loss is not None:
            reference = max(self.dense_loss, rules.settled_loss)
            holds = self.routed_loss <= (1 + rules.loss_tolerance) * reference
            self.price *= rules.price_growth if holds else 1 / rules.price_growth
            self.price = min(max(self.price, rules.price_start), rules.price_most)
            self.careful = self.careful or not holds
            step_down = rules.caution_step if self.careful else rules.caution_fall
            self.caution -= step_down if holds else -2 * step_down
            self.caution = min(max(self.caution, 0.0), rules.caution_start)
        self.read_rate = _smooth(self.read_rate, read_rate, 0.05)
        self._settle(step, self.read_rate)

    def _settle(self, step: int, rate: float) -> None:
        """Mature once the smoothed read rate and caution have settled; consolidate again if the rate
        rises.
        """
        rules, change = self.rules, rate - self.settled_rate
        # While caution still falls, a level rate is a stop on the way: familiar queries are not yet answered
        # from memory.
        if abs(self.caution - self.settled_caution) > rules.mature_change * rules.caution_start:
            self.settled_caution, self.settled_step = self.caution, step
        # Rates below one in a thousand are none: what only decays towards zero has settled.
        if abs(change) > rules.mature_change * max(self.settled_rate, 1e-3):
            self.settled_rate, self.settled_step = rate, step
            if self.phase == "mature" and change > 0:
                self.phase = "consolidate"
        if self.phase == "consolidate" and step - self.settled_step >= rules.mature_steps:
            self.phase, self.matured_at = "mature", step

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the rules as plain numbers."""
        state = asdict(self)
        del state["rules"]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        known = {field.name for field in fields(self)} - {"rules"}
        if set(state) != known:
            raise ValueError(
                f"controller state has the fields {sorted(state)}, expected {sorted(known)}: the "
                "checkpoint is from another version"
            )
        for name, value in state.items():
            setattr(self, name, value)

    def take_over(self, state: dict[str, Any]) -> None:
        """Begin routing by these rules where an acquisition under others has just ended."""
        self.load_state_dict(state)
        if self.phase != "acquire":
            self.price, self.caution = self.rules.price_start, self.rules.caution_start


def _smooth(average: float | None, value: float, rate: float) -> float:
    return value if average is None else (1 - rate) * average + rate * value
