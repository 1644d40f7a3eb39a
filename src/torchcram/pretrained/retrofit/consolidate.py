"""Consolidate: semantic memory is taught by the untouched model while reads grow dearer.

Distillation, and nothing of the model itself learns: what is trained are the semantic memories, through the
remote part that they predict, so that what is learned fades with what is remote. Weights that do better on
text that teaches nothing are kept; if none do, those that were there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from torchcram.memory.phases import Phases
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.course import Course
from torchcram.pretrained.retrofit.distil import ReadCount, distil, untouched_states
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.judge import compared
from torchcram.pretrained.retrofit.processes import ALONE, Processes
from torchcram.pretrained.retrofit.router_fit import predicted_harms, price_for
from torchcram.pretrained.retrofit.snapshot import load_snapshot, write_snapshot
from torchcram.runs.clock import Clock
from torchcram.runs.interruption import Interruption
from torchcram.runs.metrics import append_line
from torchcram.types import Reads

# Seconds between snapshots.
SNAPSHOT_SECONDS = 120.0
# The steps of Adam: how long its averages reach back, and the largest norm of a gradient.
BETAS, LARGEST_NORM = (0.9, 0.99), 1.0
# Of all possible reads, so many are made at the cheapest price.
FIRST_READS = 0.95


@dataclass(frozen=True, kw_only=True)
class Held:
    """Of text that teaches nothing.

    Attributes:
        none: divergence without reads, in nats a token.
        routed: with the wanted share of reads.
        reads: share of token x layer that read then.
    """

    none: float
    routed: float
    reads: float

    @property
    def score(self) -> float:
        """What is to be small."""
        return (self.none + self.routed) / 2

    def no_worse(self, other: Held) -> bool:
        """Whether neither divergence is above another one's."""
        return self.none <= other.none and self.routed <= other.routed


@dataclass(frozen=True, kw_only=True)
class Consolidated:
    """What came of it.

    Attributes:
        before, after: on held-out text; the same where nothing did better.
        records: one a step (``kind`` train) and one a look at held-out text (``kind`` held).
    """

    before: Held
    after: Held
    records: tuple[dict[str, Any], ...]


class HeldText:
    """Text that teaches nothing, with what the untouched model makes of it.

    Args:
        layerwise: the model.
        windows: tokens.
        processes: that share the windows.
    """

    def __init__(
        self,
        layerwise: Layerwise,
        windows: Sequence[Int[Tensor, " _"]],
        *,
        processes: Processes = ALONE,
    ):
        self.layerwise, self.windows, self.processes = layerwise, windows, processes
        self.states = [untouched_states(layerwise, ids) for ids in processes.mine(windows)]

    @torch.no_grad()
    def divergence(self, reads: Reads = "routed", *, price: float | None = None) -> tuple[float, ReadCount]:
        """Return the divergence from the untouched model, in nats a token, and what was read."""
        layerwise = self.layerwise
        total, tokens, count = 0.0, 0, ReadCount(memories(layerwise.model))
        with reading(layerwise.model, reads, price=price), count:
            for calls, untouched in self.states:
                now = layerwise.run(calls.embedded, calls)
                total += float(compared(layerwise, calls, untouched, now)[0])
                tokens += len(calls.ids)
        sums = torch.tensor([total, tokens], dtype=torch.float64)
        self.processes.add(sums)
        count.share_with(self.processes)
        return float(sums[0] / sums[1]), count

    def look(self, price: float, *, reads: float) -> Held:
        """Judge the model as it is, without reads and at a share of reads, whose price is near the given
        one.
        """
        none, _ = self.divergence("none")
        now = price_for(
            self.layerwise.model,
            self.windows,
            reads=reads,
            start=price,
            rounds=1,
            processes=self.processes,
        )
        routed, count = self.divergence(price=now)
        return Held(none=none, routed=routed, reads=count.share)


def taught_parameters(model: Any) -> dict[str, nn.Parameter]:
    """Return the parameters of all semantic memories, by layer and name."""
    return {
        f"{layer}.{name}": parameter
        for layer, memory in memories(model).items()
        for name, parameter in memory.semantic.named_parameters()
    }


@contextmanager
def _learning(model: Any, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Nothing but some parameters asks for gradients, for a while."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    taught = {id(parameter) for parameter in parameters.values()}
    for parameter in before:
        parameter.requires_grad_(id(parameter) in taught)
    try:
        yield
    finally:
        for parameter, asked in before.items():
            parameter.requires_grad_(asked)
            parameter.grad = None


def consolidate(
    model: Any,
    layerwise: Layerwise,
    *,
    lessons: Sequence[Int[Tensor, " _"]],
    select: Sequence[Int[Tensor, " _"]],
    course: Course,
    reads: float,
    snapshot: Path | None = None,
    metrics: Path | None = None,
    processes: Processes = ALONE,
    tell: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, str], None] = lambda steps, text: None,
) -> Consolidated:
    """Teach the semantic memories of a model.

    Args:
        model: retrofitted, at rest, with memories and routers that are fitted.
        layerwise: the same.
        lessons: tokens of the windows that teach.
        select: tokens of the windows that choose among weights.
        course: what each step takes, reads and learns.
        reads: share of token x layer down to which reads fall.
        snapshot: file to go on from, and to write; None writes none.
        metrics: file for a line a step; None writes none.
        processes: each of which takes a window a step; the first one writes.
        tell: is told in words how it stands.
        advance: is told of every step, and in a few words how it stands.

    Raises:
        KeyboardInterrupt: where a request to end came; the snapshot is written.
        FloatingPointError: if the divergence is not finite: the rate is too large.
    """
    teaching = _Teaching(model, layerwise, lessons, select, course, reads, snapshot, metrics, processes)
    with _learning(model, teaching.parameters):
        return teaching.run(tell, advance)


class _Teaching:
    """A distillation as it goes."""

    def __init__(
        self,
        model: Any,
        layerwise: Layerwise,
        lessons: Sequence[Tensor],
        select: Sequence[Tensor],
        course: Course,
        reads: float,
        snapshot: Path | None,
        metrics: Path | None,
        processes: Processes,
    ):
        self.processes = processes
        self.model, self.layerwise, self.lessons, self.course = model, layerwise, lessons, course
        self.snapshot, self.metrics, self.reads = snapshot, metrics if processes.first else None, reads
        self.held = HeldText(layerwise, select, processes=processes)
        self.parameters = taught_parameters(model)
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=course.rate, betas=BETAS)
        self.step, self.records = 0, list[dict[str, Any]]()
        if snapshot is not None and snapshot.is_file():
            self._take_up(snapshot)
        else:
            self._begin(select)

    def _begin(self, select: Sequence[Tensor]) -> None:
        harms = predicted_harms(self.model, select, processes=self.processes)
        dearest = price_for(self.model, select, reads=self.reads, processes=self.processes)
        cheapest = float(harms[min(int(FIRST_READS * len(harms)), len(harms) - 1)]) if len(harms) else 0.0
        self.before = self.least = self.held.look(dearest, reads=self.reads)
        self.best = self._copied()
        rules = self.course.rules(cheapest=cheapest, dearest=dearest, divergence=self.before.routed)
        self.phases = Phases(rules)
        self.phases.begin_routing(-1)
        self._note_held(self.before)

    def _take_up(self, file: Path) -> None:
        from torchcram.memory.phases import ConsolidationRules

        self.best, numbers = load_snapshot(file, self.parameters, self.optimizer)
        self.step, self.records = numbers["step"], numbers["records"]
        self.before, self.least = Held(**numbers["before"]), Held(**numbers["least"])
        self.phases = Phases(ConsolidationRules.parse(numbers["rules"]))
        self.phases.load_state_dict(numbers["phases"])

    def _keep(self) -> None:
        if self.snapshot is None or not self.processes.first:
            return
        numbers = {
            "step": self.step,
            "records": self.records,
            "before": asdict(self.before),
            "least": asdict(self.least),
            "rules": self.phases.rules.model_dump(mode="json"),
            "phases": self.phases.state_dict(),
        }
        write_snapshot(self.snapshot, self.parameters, self.optimizer, self.best, numbers)

    def run(self, tell: Callable[[str], None], advance: Callable[[int, str], None]) -> Consolidated:
        self._rewrite_metrics()
        advance(self.step, "")
        clock = Clock()
        with Interruption() as interruption:
            while self.step < self.course.steps:
                record = self._learn()
                advance(1, f"divergence {record['divergence']:.3f}, reads {record['reads']:.0%}")
                if self.course.look_after(self.step - 1):
                    tell(self._look())
                stopped = interruption.requested
                if self.processes.count > 1:
                    stopped = interruption.anywhere(self.processes.device)
                if stopped or clock.seconds() > SNAPSHOT_SECONDS:
                    self._keep()
                    clock = Clock()
                if stopped:
                    self.processes.wait()
                    raise KeyboardInterrupt
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.best[name])
        return Consolidated(before=self.before, after=self.least, records=tuple(self.records))

    def _learn(self) -> dict[str, Any]:
        """Take one step of the optimizer."""
        step, silent = self.step, self.course.silent(self.step)
        price, rate = self.phases.price, self.course.rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        divergence, share = self._lesson(step, "none" if silent else "routed", price)
        nn.utils.clip_grad_norm_(self.parameters.values(), LARGEST_NORM)
        self.optimizer.step()
        if not silent:
            self.phases.observe_reference(0.0, routed=divergence)
            self.phases.observe(step, loss=divergence, read_rate=share)
        self.step += 1
        record = {"kind": "train", "step": step, "silent": silent, "divergence": divergence}
        return self._note(record | {"reads": share, "price": price, "rate": rate})

    def _lesson(self, step: int, reads: Reads, price: float) -> tuple[float, float]:
        together = self.processes
        window = self.course.window(self.lessons, step, part=together.rank, parts=together.count)
        divergence, count = distil(self.layerwise, window, reads=reads, price=price)
        if together.count > 1:
            divergence = self._shared(divergence, count)
        if not divergence < float("inf"):
            raise FloatingPointError(
                f"the divergence is {divergence} at step {step}: use a smaller rate, and float32 or bfloat16"
            )
        return divergence, count.share

    def _shared(self, divergence: float, count: ReadCount) -> float:
        """Average divergence, gradients and reads over all processes."""
        together = self.processes
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            together.add(parameter.grad.div_(together.count))
        count.share_with(together)
        mean = torch.tensor(divergence / together.count, dtype=torch.float64)
        together.add(mean)
        return float(mean)

    def _look(self) -> str:
        """Judge the weights on held-out text, and keep them if they are the best so far."""
        now = self.held.look(self.phases.rules.price_most, reads=self.reads)
        if now.score < self.least.score and now.no_worse(self.before):
            self.least, self.best = now, self._copied()
        self._note_held(now)
        return (
            f"step {self.step}: held-out divergence {now.none:.4f} nats without reads (at first "
            f"{self.before.none:.4f}), {now.routed:.4f} at {now.reads:.0%} reads (at first "
            f"{self.before.routed:.4f} at {self.before.reads:.0%})"
        )

    def _copied(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def _note_held(self, held: Held) -> None:
        self._note({"kind": "held", "step": self.step, **asdict(held)})

    def _note(self, record: dict[str, Any]) -> dict[str, Any]:
        self.records.append(record)
        if self.metrics is not None:
            append_line(self.metrics, record)
        return record

    def _rewrite_metrics(self) -> None:
        """Drop the lines of steps that are done again."""
        if self.metrics is not None:
            self.metrics.unlink(missing_ok=True)
            for record in self.records:
                append_line(self.metrics, record)
