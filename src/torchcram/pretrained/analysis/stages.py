"""The stages of an analysis: each is computed once, kept, and taken up again after an interruption.

What is predictable comes from one pass over each split; what replacing it costs is measured by running the
model with replaced outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from torchcram.pretrained.analysis.causal import (
    Alone,
    Judged,
    Router,
    Stand,
    dropping,
    each_alone,
    judge,
    replacing,
    route,
    thresholds,
)
from torchcram.pretrained.analysis.controls import frequent_tokens
from torchcram.pretrained.analysis.gather import Clock, Pass, SiteSums, gather, site_sums_from
from torchcram.pretrained.analysis.harm import Forecast, learn_harm
from torchcram.pretrained.analysis.layer_figures import SiteProbes, fit_probes, layer_figures
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.analysis.live import AnalysisProgress
from torchcram.pretrained.analysis.mlp_probe import MLPProbe
from torchcram.pretrained.analysis.refit import fit_each, refit
from torchcram.pretrained.analysis.ridge import LinearProbe
from torchcram.pretrained.analysis.scoring import Scored, SiteView, score
from torchcram.pretrained.analysis.settings import AnalysisConfig
from torchcram.pretrained.analysis.state_probe import StateProbe, Summary
from torchcram.pretrained.local_attention import LocalAttention, local_attention
from torchcram.pretrained.sites import AttentionSite, vocabulary_size
from torchcram.pretrained.store import Store
from torchcram.pretrained.texts import SPLITS, Corpus, Split, Window

# Policies of routing by token; the last puts nothing where the one before it puts the prediction.
POLICIES = ("oracle", "predicted_error", "predicted_harm", "predicted_harm_dropped")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was measured; the attributes are the results of the stages.

    Attributes:
        clock: of the fit pass.
        solution_seconds: from sums to probes.
        stage_seconds: of the other stages.
        figures: of each block, in closed form.
        scored: scores of single operations on the test split.
        replaced, dropped: each block alone, on select text.
        looked_at: share of its entries that a replaced block still looks at, in a window of full length.
        refit_changes: change of the loss on select text, by number of replaced layers.
        judged: variants on test text: ``replace-k``, ``plain-k``, ``drop_same-k``, ``drop_best-k``.
        routed: one record for each policy and skip rate.
    """

    clock: Clock
    solution_seconds: float
    stage_seconds: dict[str, float]
    figures: list[dict[str, Any]]
    scored: Scored
    replaced: list[Alone]
    dropped: list[Alone]
    looked_at: float
    refit_changes: dict[int, float]
    judged: Judged
    routed: list[dict[str, Any]]


@dataclass(kw_only=True)
class Stages:
    """One analysis under way.

    Attributes:
        model, tokenizer: of Transformers, at rest.
        sites: attention blocks.
        corpus: windows of each split.
        settings: of the analysis.
        store: keeps what is done.
        progress: shows it.
    """

    model: Any
    tokenizer: Any
    sites: list[AttentionSite]
    corpus: Corpus
    settings: AnalysisConfig
    store: Store
    progress: AnalysisProgress

    def measure(self) -> Measured:
        """Go through all stages."""
        clock, mlps = self._gather_all()
        start = time.perf_counter()
        probes = self._probes()
        solution = time.perf_counter() - start
        figures = self._kept("figures", lambda: self._figures(probes))
        scored = Scored(**self._kept("scores", lambda: self._score(probes, mlps)))
        layerwise, local = Layerwise(self.model, self.sites), self._local()
        probes = [
            replace(probe, summary=replace(probe.summary, local=near))
            for probe, near in zip(probes, local, strict=True)
        ]
        each = self._kept("each", lambda: self._fit_each(layerwise, probes))
        alone = self._kept("alone", lambda: self._alone(layerwise, each, local))
        replaced, dropped = ([Alone(**one) for one in alone[key]] for key in ("replaced", "dropped"))
        forecasts = [_forecast_from(content) for content in self._kept("harm", lambda: self._harm(probes))]
        refitted = self._kept("refit", lambda: self._refit(layerwise, probes, replaced))
        judged = self._kept(
            "judged", lambda: self._judge(layerwise, probes, replaced, dropped, refitted["probes"], local)
        )
        routed = self._kept("routed", lambda: self._route(layerwise, probes, forecasts))
        return Measured(
            clock=clock,
            solution_seconds=solution,
            stage_seconds=self._kept_seconds(),
            figures=figures,
            scored=scored,
            replaced=replaced,
            dropped=dropped,
            looked_at=_looked_at(local, self.settings.context),
            refit_changes=refitted["changes"],
            judged=Judged(**judged),
            routed=routed,
        )

    def tidy(self) -> None:
        """Remove what only an unfinished analysis needs."""
        for split in SPLITS:
            self.store.forget(f"gather-{split}")

    def _kept(self, stage: str, compute: Callable[[], Any]) -> Any:
        """Return what a stage kept, or compute and keep it."""
        found = self.store.load(stage)
        if found is None:
            start = time.perf_counter()
            found = {"content": compute(), "seconds": time.perf_counter() - start}
            self.store.keep(stage, found)
        return found["content"]

    def _kept_seconds(self) -> dict[str, float]:
        return {
            stage: float(self.store.load(stage)["seconds"])
            for stage in ("figures", "scores", "each", "alone", "harm", "refit", "judged", "routed")
        }

    def _gather_all(self) -> tuple[Clock, list[MLPProbe]]:
        """Sum up every split; of the passes only the clock of the fit split and its MLP probes stay in
        memory.
        """
        windows = self.corpus.windows
        classes = frequent_tokens(
            [window.ids for window in windows["fit"]], vocabulary=vocabulary_size(self.model)
        )
        passes: dict[Split, Pass] = {}
        for split in SPLITS:
            width = self.settings.mlp_width if split == "fit" else 0
            advance = self.progress.stage(f"look at the {split} split", total=self.corpus.tokens(split))
            passes[split] = gather(
                self.model,
                self.sites,
                windows[split],
                classes=classes,
                store=self.store,
                split=split,
                mlp_width=width,
                seed=self.settings.seed,
                advance=advance,
            )
            passes[split].sums = []
        return passes["fit"].clock, passes["fit"].probes

    def _sums(self, number: int) -> tuple[SiteSums, SiteSums, SiteSums]:
        fit, select, test = (
            site_sums_from(self.store.load(f"gather-{split}")["sums"][number]) for split in SPLITS
        )
        return fit, select, test

    def _probes(self) -> list[SiteProbes]:
        advance = self.progress.stage("solve for the probes", total=len(self.sites), unit="layers")
        found = []
        for number, site in enumerate(self.sites):
            fit, select, _ = self._sums(number)
            found.append(fit_probes(site, fit, select, directions=self.settings.state_directions))
            advance(1)
        return found

    def _figures(self, probes: Sequence[SiteProbes]) -> list[dict[str, Any]]:
        return [
            layer_figures(site, probe, *self._sums(number))
            for number, (site, probe) in enumerate(zip(self.sites, probes, strict=True))
        ]

    def _score(self, probes: Sequence[SiteProbes], mlps: Sequence[MLPProbe]) -> dict[str, Any]:
        views = []
        for number, probe in enumerate(probes):
            mlp = mlps[number] if mlps else None
            projection = {"weight": probe.weight.float(), "bias": probe.bias.float()}
            views.append(SiteView(heads=probe.heads.float(), mean=probe.mean.float(), mlp=mlp, **projection))
        advance = self.progress.stage("score the test split", total=self.corpus.tokens("test"))
        return score(self.model, self.sites, self._ids("test"), views, advance=advance).tensors()

    def _local(self) -> Sequence[LocalAttention | None]:
        """Attention on a buffer of every block."""
        return (
            local_attention(self.model, self.sites, reach=self.settings.reach)
            if self.settings.reach
            else [None] * len(self.sites)
        )

    def _fit_each(self, layerwise: Layerwise, probes: Sequence[SiteProbes]) -> list[dict[str, Any]]:
        advance = self.progress.stage("fit each layer's probe", total=len(layerwise.layers), unit="layers")
        return [
            _content(probe)
            for probe in fit_each(layerwise, self.sites, **self._refit_data(probes), advance=advance)
        ]

    def _refit_data(self, probes: Sequence[SiteProbes]) -> dict[str, Any]:
        """What probes with a memory are fitted from."""
        fit, select = (
            self._ids("fit", self.settings.refit_tokens),
            self._ids("select", max(self.settings.refit_tokens // 8, 1)),
        )
        return {
            "first": [probe.block for probe in probes],
            "summaries": [probe.summary for probe in probes],
            "fit": fit,
            "select": select,
        }

    def _alone(
        self, layerwise: Layerwise, each: Sequence[dict[str, Any]], local: Sequence[LocalAttention | None]
    ) -> dict[str, Any]:
        windows = self._ids("select", self.settings.rank_tokens)
        found = {}
        probes = [
            replacing(_state_probe_from(content, near)) for content, near in zip(each, local, strict=True)
        ]
        pairs: dict[str, list[Stand]] = {"replaced": probes, "dropped": [dropping] * len(probes)}
        for key, stands in pairs.items():
            advance = self.progress.stage(f"each layer {key} alone", total=sum(map(len, windows)))
            found[key] = [
                asdict(one) for one in each_alone(layerwise, self.sites, windows, stands, advance=advance)
            ]
        return found

    def _harm(self, probes: Sequence[SiteProbes]) -> list[dict[str, Any]]:
        windows = self._ids("fit", self.settings.harm_tokens, least=2)
        advance = self.progress.stage("learn downstream harm", total=sum(map(len, windows)))
        forecasts = learn_harm(
            self.model, self.sites, windows, probes=[probe.block for probe in probes], advance=advance
        )
        return [{"linear": _plain(forecast.linear), "scale": forecast.scale} for forecast in forecasts]

    def _refit(
        self, layerwise: Layerwise, probes: Sequence[SiteProbes], replaced: Sequence[Alone]
    ) -> dict[str, Any]:
        advance = self.progress.stage(
            "refit behind replaced layers", total=len(layerwise.layers), unit="layers"
        )
        chosen, changes = refit(
            layerwise, self.sites, self._sets(replaced), **self._refit_data(probes), advance=advance
        )
        plain = {
            size: {number: _content(probe) for number, probe in found.items()}
            for size, found in chosen.items()
        }
        return {"probes": plain, "changes": changes}

    def _sets(self, ranked: Sequence[Alone]) -> dict[int, list[int]]:
        """The best sites of each size: those that move the predictions least alone."""
        order = sorted(range(len(ranked)), key=lambda number: ranked[number].divergence)
        return {size: order[:size] for size in self.settings.replace if size <= len(order)}

    def _judge(
        self,
        layerwise: Layerwise,
        probes: Sequence[SiteProbes],
        replaced: Sequence[Alone],
        dropped: Sequence[Alone],
        refitted: dict[int, Any],
        local: Sequence[LocalAttention | None],
    ) -> dict[str, Any]:
        chosen = self._windows("test", self.settings.judge_tokens)
        variants: dict[str, dict[int, Stand]] = {}
        drops = self._sets(dropped)
        for size, numbers in self._sets(replaced).items():
            variants[f"replace-{size}"] = {
                number: replacing(_state_probe_from(content, local[number]))
                for number, content in refitted[size].items()
            }
            variants[f"plain-{size}"] = {number: replacing(probes[number].block) for number in numbers}
            variants[f"drop_same-{size}"] = dict.fromkeys(numbers, dropping)
            variants[f"drop_best-{size}"] = dict.fromkeys(drops[size], dropping)
        advance = self.progress.stage(
            "judge replaced layers", total=sum(len(window.ids) for window in chosen)
        )
        documents = [window.document for window in chosen]
        return asdict(
            judge(
                layerwise, self.sites, self._on_device(chosen), variants, documents=documents, advance=advance
            )
        )

    @torch.no_grad()
    def _route(
        self, layerwise: Layerwise, probes: Sequence[SiteProbes], forecasts: Sequence[Forecast]
    ) -> list[dict[str, Any]]:
        select, test = (
            self._ids("select", self.settings.route_tokens),
            self._ids("test", self.settings.route_tokens),
        )
        advance = self.progress.stage(
            "route single tokens", total=len(POLICIES) * len(self.settings.skip_rates), unit="settings"
        )
        base = float(
            torch.cat(
                [
                    layerwise.losses(layerwise.run(calls.embedded, calls), calls)
                    for calls in map(layerwise.embed, test)
                ]
            )
            .double()
            .mean()
        )
        blocks = [probe.block for probe in probes]
        records = []
        for policy in POLICIES:
            router = Router(policy, probes=blocks, forecasts=forecasts)
            for rate, found in thresholds(
                layerwise, self.sites, select, router, rates=self.settings.skip_rates
            ).items():
                fresh = Router(policy, probes=blocks, forecasts=forecasts, threshold=found.threshold)
                loss = route(layerwise, self.sites, test, fresh)
                record = {
                    "policy": policy,
                    "skip_rate": float(fresh.skipped.sum() / fresh.seen.sum()),
                    "loss_change": loss - base,
                    "wanted_rate": rate,
                }
                records.append(record | {"select": asdict(found), "tokens": sum(map(len, test))})
                advance(1)
        return records

    def _windows(self, split: Split, tokens: int | None = None, *, least: int = 1) -> list[Window]:
        """The first windows of a split that together have so many tokens."""
        chosen: list[Window] = []
        count = 0
        for window in self.corpus.windows[split]:
            if tokens is None or count < tokens or len(chosen) < least:
                chosen.append(window)
                count += len(window.ids)
        return chosen

    def _ids(self, split: Split, tokens: int | None = None, *, least: int = 1) -> list[Int[Tensor, " _"]]:
        return self._on_device(self._windows(split, tokens, least=least))

    def _on_device(self, windows: Sequence[Window]) -> list[Tensor]:
        device = self.model.get_input_embeddings().weight.device
        return [window.ids.to(device) for window in windows]


def _plain(probe: LinearProbe) -> dict[str, Any]:
    return {"weight": probe.weight, "bias": probe.bias, "strength": probe.strength}


def _forecast_from(content: dict[str, Any]) -> Forecast:
    return Forecast(linear=LinearProbe(**content["linear"]), scale=content["scale"])


def _content(probe: StateProbe) -> dict[str, Any]:
    return {"directions": probe.summary.directions, "linear": _plain(probe.linear)}


def _state_probe_from(content: dict[str, Any], local: LocalAttention | None) -> StateProbe:
    return StateProbe(
        summary=Summary(directions=content["directions"], local=local),
        linear=LinearProbe(**content["linear"]),
    )


def _looked_at(local: Sequence[LocalAttention | None], context: int) -> float:
    return 0.0 if local[0] is None else local[0].looked_at(context) / (context * (context + 1) / 2)
