"""What follows the closed form, where there is time: distillation, routers that know the taught memories, and
layers that give up their cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.closed_stages import fit_and_price
from torchcram.pretrained.retrofit.consolidate import Consolidated, Held, HeldText, consolidate
from torchcram.pretrained.retrofit.course import Course
from torchcram.pretrained.retrofit.install import memories, retrofit_of
from torchcram.pretrained.retrofit.router_fit import price_for
from torchcram.pretrained.retrofit.stages import UNREAD, Stages
from torchcram.pretrained.retrofit.unread import choose_unread

Advance = Callable[[int], None]
# Name of what the stage keeps of its records, as JSON in bytes.
RECORDS = "records"


@dataclass(frozen=True, kw_only=True)
class Matured:
    """What came of it.

    Attributes:
        before, after: of the distillation, on held-out text.
        records: of the distillation.
        unread: layers that read no more.
        price: of a read, in nats.
    """

    before: Held
    after: Held
    records: tuple[dict[str, Any], ...]
    unread: tuple[int, ...]
    price: float


@dataclass(frozen=True, kw_only=True)
class Text:
    """The windows of a maturing: that teach, that choose, and that routers are fitted on."""

    lessons: Sequence[Tensor]
    select: Sequence[Tensor]
    routed: Sequence[Tensor]


def mature(
    layerwise: Layerwise,
    stages: Stages,
    text: Text,
    bases: Mapping[int, Float[Tensor, "features directions"]],
    *,
    course: Course,
    reads: float,
    progress: AnalysisProgress,
) -> Matured:
    """Distil, fit the routers again, and let layers that hardly read give up their cache.

    Args:
        layerwise: the model, retrofitted, with memories and routers that are fitted.
        stages: keep what is done.
        text: windows.
        bases: of every layer, directions of its features.
        course: of the distillation.
        reads: share of token x layer that may read.
        progress: is told.
    """
    model = layerwise.model

    def route(advance: Advance) -> dict[str, Tensor]:
        return _route(layerwise, stages, text, bases, reads, advance)

    def give_up(advance: Advance) -> dict[str, Tensor]:
        held = HeldText(layerwise, text.select, processes=stages.processes)
        chosen = choose_unread(model, held, text.select, reads=reads, advance=advance)
        told = f"divergence {chosen.before:.4f} before, {chosen.after:.4f} nats after"
        progress.say(f"layers without a cache: {list(chosen.layers) or 'none'} ({told})")
        return {UNREAD: torch.tensor(chosen.layers), "price": _number(chosen.price)}

    taught = teach(layerwise, stages, text, course=course, reads=reads, progress=progress)
    tokens = sum(len(ids) for ids in text.select)
    routed = stages.stage("route-again", progress, sum(map(len, text.routed)) + 4 * tokens, route)
    retrofit_of(model).set_price(float(routed["price"]))
    freed = stages.stage("unread", progress, 2 * tokens, give_up)
    retrofit_of(model).set_price(float(freed["price"]))
    return Matured(
        before=taught.before,
        after=taught.after,
        records=taught.records,
        unread=tuple(freed[UNREAD].tolist()),
        price=float(freed["price"]),
    )


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def teach(
    layerwise: Layerwise,
    stages: Stages,
    text: Text,
    *,
    course: Course,
    reads: float,
    progress: AnalysisProgress,
) -> Consolidated:
    """Do the first of the stages of :func:`mature`, or take it up."""

    def work(advance: Advance) -> dict[str, Tensor]:
        def stands(steps: int, told: str) -> None:
            advance(steps)
            progress.note(told)

        done = consolidate(
            layerwise.model,
            layerwise,
            lessons=text.lessons,
            select=text.select,
            course=course,
            reads=reads,
            snapshot=stages.file("snapshot.safetensors"),
            metrics=stages.file("metrics.jsonl"),
            processes=stages.processes,
            tell=progress.say,
            advance=stands,
        )
        return {RECORDS: torch.tensor(list(json.dumps(asdict(done)).encode()), dtype=torch.uint8)}

    kept = stages.stage("consolidate", progress, course.steps, work, unit="steps")
    told = json.loads(bytes(kept[RECORDS].tolist()))
    return Consolidated(
        before=Held(**told["before"]), after=Held(**told["after"]), records=tuple(told["records"])
    )


def _route(
    layerwise: Layerwise,
    stages: Stages,
    text: Text,
    bases: Mapping[int, Tensor],
    reads: float,
    advance: Advance,
) -> dict[str, Tensor]:
    """Fit the routers to the harm of the taught memories; keep the earlier ones where these judge better."""
    model, together = layerwise.model, stages.processes
    layers = memories(model)
    held = HeldText(layerwise, text.select, processes=together)
    before = {layer: _router_state(memory) for layer, memory in layers.items()}
    old_price = price_for(model, text.select, reads=reads, processes=together, advance=advance)
    old, _ = held.divergence(price=old_price)
    price = fit_and_price(
        layerwise,
        stages,
        routed=text.routed,
        select=text.select,
        bases=bases,
        reads=reads,
        draw=3,
        advance=advance,
    )
    new, _ = held.divergence(price=price)
    if new <= old:
        return {"price": _number(price)}
    for layer, state in before.items():
        router = layers[layer].router
        if router is not None:
            router.load_state_dict(state)
    return {"price": _number(old_price)}


def _router_state(memory: Any) -> dict[str, Tensor]:
    if memory.router is None:
        return {}
    return {name: tensor.clone() for name, tensor in memory.router.state_dict().items()}
