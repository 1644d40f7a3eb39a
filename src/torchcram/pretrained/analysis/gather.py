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

from torchcram.pretrained.analysis.controls import Classes, frequent_tokens
from torchcram.pretrained.analysis.mlp_probe import MLPProbe
from torchcram.pretrained.analysis.site_sums import SiteSums, no_site_sums
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import AttentionSite, at_rest, vocabulary_size
from torchcram.pretrained.store import Store
from torchcram.pretrained.texts import SPLITS, Split, Window
from torchcram.runs.interruption import Interruption

PLAIN_EVERY = 10
KEEP_EVERY = 20


@dataclass(kw_only=True)
class PassCost:
    """Seconds and memory that a pass took, and those of the plain forward passes beside it.

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
    """State of a pass between two windows.

    Attributes:
        sums: of each block.
        probes: MLP probes of each block; may be empty.
        cost: seconds and memory so far.
        done: number of windows taken in.
    """

    sums: list[SiteSums]
    probes: list[MLPProbe]
    cost: PassCost = field(default_factory=PassCost)
    done: int = 0

    def kept(self) -> KeptPass:
        """Return the state for a file."""
        states = [probe.state() for probe in self.probes]
        return KeptPass(sums=self.sums, probes=states, cost=self.cost, done=self.done)

    def restore(self, kept: KeptPass) -> None:
        """Go on from :meth:`kept`."""
        for probe, state in zip(self.probes, kept.probes, strict=True):
            probe.restore(state)
        self.sums, self.cost, self.done = kept.sums, kept.cost, kept.done


@dataclass(frozen=True, kw_only=True)
class KeptPass:
    """A :class:`Pass` in a file; ``probes`` are the states of its MLP probes."""

    sums: list[SiteSums]
    probes: list[dict[str, Any]]
    cost: PassCost
    done: int


@torch.no_grad()
def gather(
    model: Any,
    sites: Sequence[AttentionSite],
    windows: Sequence[Window],
    *,
    classes: Classes,
    store: Store,
    split: Split,
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
        split: that of the windows.
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
    kept = store.load(stage_of(split), KeptPass)
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
                store.keep(stage_of(split), state.kept())
            if stop.requested:
                raise KeyboardInterrupt
    return state


def gather_all(study: Study) -> tuple[PassCost, list[MLPProbe]]:
    """Sum up every split of a study.

    Of the passes only the cost of the fit split and its MLP probes stay in memory.
    """
    windows, settings = study.corpus.windows, study.settings
    classes = frequent_tokens(
        [window.ids for window in windows["fit"]], vocabulary=vocabulary_size(study.model)
    )
    passes: dict[Split, Pass] = {}
    for split in SPLITS:
        advance = study.progress.stage(f"look at the {split} split", total=study.corpus.tokens(split))
        passes[split] = gather(
            study.model,
            study.sites,
            windows[split],
            classes=classes,
            store=study.store,
            split=split,
            mlp_width=settings.mlp_width if split == "fit" else 0,
            seed=settings.seed,
            advance=advance,
        )
        passes[split].sums = []
    return passes["fit"].cost, passes["fit"].probes


def gathered(study: Study, number: int) -> tuple[SiteSums, SiteSums, SiteSums]:
    """Return the sums of one block over the fit, the select and the test split."""
    fit, select, test = (_kept(study, split).sums[number] for split in SPLITS)
    return fit, select, test


def _kept(study: Study, split: Split) -> KeptPass:
    kept = study.store.load(stage_of(split), KeptPass)
    assert kept is not None, "all splits are gathered first"
    return kept


def stage_of(split: Split) -> str:
    """Return the name under which a store keeps the pass over a split."""
    return f"gather-{split}"


def _take_in(
    model: Any, sites: Sequence[AttentionSite], ids: Tensor, *, classes: Classes, state: Pass
) -> None:
    """Run one window with hooks, and now and then without them, before it."""
    cost = state.cost
    if state.done % PLAIN_EVERY == 0:
        start = _now(ids.device)
        hidden_states(model, ids)
        cost.plain += _now(ids.device) - start
        cost.plain_tokens += len(ids)
        cost.memory_before = cost.memory_before or _resident()
    of_control = classes.of(ids)
    permutation = torch.randperm(len(ids), generator=torch.Generator().manual_seed(state.done)).to(ids.device)

    def see(number: int, x: Tensor, y: Tensor) -> None:
        sums = state.sums[number]
        sums.moments.add(x, y)
        before = _now(ids.device)
        sums.add_controls(x, y, classes=of_control, permutation=permutation)
        between = _now(ids.device)
        if state.probes:
            state.probes[number].learn(x, y)
        cost.controls += between - before
        cost.mlp += _now(ids.device) - between

    start, apart = _now(ids.device), cost.controls + cost.mlp
    with capture(sites, see=see):
        hidden_states(model, ids)
    cost.ridge += _now(ids.device) - start - (cost.controls + cost.mlp - apart)
    cost.tokens += len(ids)
    cost.memory = max(cost.memory, _resident())


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
