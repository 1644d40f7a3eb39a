"""One pass over a split: the sufficient statistics of all attention blocks at once, kept now and then, and at
Ctrl-C.

Beside them run the sums of the controls, the MLP probe (on the fit split alone), and, on every tenth window,
a plain forward pass for comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from torch import Tensor

from torchcram.pretrained.analysis.controls import Classes, ClassSums, no_class_sums
from torchcram.pretrained.analysis.mlp_probe import MLPProbe
from torchcram.pretrained.analysis.moments import Moments, moments_from, no_moments
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import AttentionSite, at_rest
from torchcram.pretrained.store import Store
from torchcram.pretrained.texts import Window
from torchcram.runs.interruption import Interruption

# Output channels of the control with shuffled targets.
SHUFFLED = 16
PLAIN_EVERY = 10
KEEP_EVERY = 20


@dataclass(kw_only=True)
class SiteSums:
    """What is summed up for one attention block; outputs are its heads side by side.

    Attributes:
        moments: of inputs and outputs.
        controls: of the classes of each control.
        shuffled: products of the inputs with some channels of the outputs of other tokens, less their
            window's mean.
    """

    moments: Moments
    controls: dict[str, ClassSums]
    shuffled: Tensor

    def tensors(self) -> dict[str, Any]:
        """Return the content as tensors, for a file."""
        controls = {name: {"counts": sums.counts, "sums": sums.sums} for name, sums in self.controls.items()}
        return {"moments": self.moments.tensors(), "controls": controls, "shuffled": self.shuffled}


def site_sums_from(content: dict[str, Any]) -> SiteSums:
    """Return what :meth:`SiteSums.tensors` gave."""
    controls = {
        name: ClassSums(counts=sums["counts"], sums=sums["sums"])
        for name, sums in content["controls"].items()
    }
    return SiteSums(moments=moments_from(content["moments"]), controls=controls, shuffled=content["shuffled"])


def no_site_sums(site: AttentionSite, classes: Classes, *, device: torch.device) -> SiteSums:
    """Return the sums over no tokens."""
    outputs = site.heads * site.head_size
    return SiteSums(
        moments=no_moments(site.width, outputs, device=device),
        controls={
            name: no_class_sums(size, outputs, device=device) for name, size in classes.sizes().items()
        },
        shuffled=torch.zeros(site.width, min(SHUFFLED, outputs), dtype=torch.float64, device=device),
    )


@dataclass(kw_only=True)
class Clock:
    """Seconds of the parts of a pass, and the plain forward passes beside it.

    Attributes:
        ridge: forward passes with their statistics.
        controls, mlp: what runs beside them.
        plain: of the plain forward passes.
        plain_tokens: tokens of these.
        tokens: of the pass.
        memory_before: resident bytes of the process with the model at work, before statistics.
        memory: most resident bytes seen.
    """

    ridge: float = 0.0
    controls: float = 0.0
    mlp: float = 0.0
    plain: float = 0.0
    plain_tokens: int = 0
    tokens: int = 0
    memory_before: int = 0
    memory: int = 0

    @property
    def plain_all(self) -> float:
        """Seconds that plain forward passes over all tokens would take."""
        return self.plain * self.tokens / max(self.plain_tokens, 1)


@dataclass(kw_only=True)
class Pass:
    """State of a pass between two windows."""

    sums: list[SiteSums]
    probes: list[MLPProbe]
    clock: Clock = field(default_factory=Clock)
    done: int = 0

    def tensors(self) -> dict[str, Any]:
        """Return the content for a file."""
        return {
            "sums": [sums.tensors() for sums in self.sums],
            "probes": [probe.state() for probe in self.probes],
            "clock": vars(self.clock),
            "done": self.done,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from :meth:`tensors`."""
        self.sums = [site_sums_from(sums) for sums in content["sums"]]
        for probe, state in zip(self.probes, content["probes"], strict=True):
            probe.restore(state)
        self.clock, self.done = Clock(**content["clock"]), content["done"]


@torch.no_grad()
def gather(
    model: Any,
    sites: Sequence[AttentionSite],
    windows: Sequence[Window],
    *,
    classes: Classes,
    store: Store,
    split: str,
    mlp_width: int = 0,
    seed: int = 0,
    advance: Callable[[int], None] = lambda tokens: None,
) -> Pass:
    """Run a model over windows and sum up; a pass that was interrupted goes on.

    Args:
        model: of Transformers.
        sites: its attention blocks.
        windows: of one split.
        classes: of the controls.
        store: keeps the state.
        split: names the stage.
        mlp_width: hidden units of the MLP probes; 0 for none.
        seed: of the MLP probes.
        advance: is told the tokens of each finished window.

    Raises:
        FloatingPointError: if an output overflows the model's precision.
    """
    device = model.get_input_embeddings().weight.device
    generator = torch.Generator().manual_seed(seed)
    probes = [
        MLPProbe(site.width, site.heads * site.head_size, width=mlp_width, generator=generator)
        for site in sites
        if mlp_width
    ]
    state = Pass(sums=[no_site_sums(site, classes, device=device) for site in sites], probes=probes)
    kept = store.load(f"gather-{split}")
    if kept is not None:
        state.restore(kept)
        advance(sum(len(window.ids) for window in windows[: state.done]))
    with at_rest(model), Interruption() as stop:
        for window in windows[state.done :]:
            for probe in state.probes:
                probe.anneal(state.done / len(windows))
            _take_in(model, sites, window.ids.to(device), classes=classes, state=state)
            state.done += 1
            advance(len(window.ids))
            if state.done % KEEP_EVERY == 0 or state.done == len(windows) or stop.requested:
                _require_finite(state, sites, model)
                store.keep(f"gather-{split}", state.tensors())
            if stop.requested:
                raise KeyboardInterrupt
    return state


def _take_in(
    model: Any, sites: Sequence[AttentionSite], ids: Tensor, *, classes: Classes, state: Pass
) -> None:
    """Run one window with hooks, and now and then without them, before it."""
    clock = state.clock
    if state.done % PLAIN_EVERY == 0:
        start = _now(ids.device)
        hidden_states(model, ids)
        clock.plain += _now(ids.device) - start
        clock.plain_tokens += len(ids)
        clock.memory_before = clock.memory_before or _resident()
    of = classes.of(ids)
    permutation = torch.randperm(len(ids), generator=torch.Generator().manual_seed(state.done)).to(ids.device)

    def see(number: int, x: Tensor, y: Tensor) -> None:
        sums = state.sums[number]
        sums.moments.add(x, y)
        before = _now(ids.device)
        for name, sum_of_classes in sums.controls.items():
            sum_of_classes.add(of[name], y)
        # Less the window's mean: tokens of one window share its document, and that is no nothing.
        some = y[:, : sums.shuffled.shape[1]].double()
        sums.shuffled.addmm_(x.double().T, (some - some.mean(0))[permutation])
        between = _now(ids.device)
        if state.probes:
            state.probes[number].learn(x, y)
        clock.controls += between - before
        clock.mlp += _now(ids.device) - between

    start, apart = _now(ids.device), clock.controls + clock.mlp
    with capture(sites, see=see):
        hidden_states(model, ids)
    clock.ridge += _now(ids.device) - start - (clock.controls + clock.mlp - apart)
    clock.tokens += len(ids)
    clock.memory = max(clock.memory, _resident())


def hidden_states(model: Any, ids: Tensor) -> Tensor:
    """Run the model without its output layer, which no statistics need, and return the last hidden states."""
    body = getattr(model, "base_model", model)
    return body(input_ids=ids[None], use_cache=False)[0]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _require_finite(state: Pass, sites: Sequence[AttentionSite], model: Any) -> None:
    for site, sums in zip(sites, state.sums, strict=True):
        if not sums.moments.finite():
            dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
            raise FloatingPointError(
                f"the attention of layer {site.layer} overflows in {dtype}: load the model in "
                "float32 (--dtype float32) or bfloat16"
            )
