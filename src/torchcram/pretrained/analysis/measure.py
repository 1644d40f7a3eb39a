"""The stages of an analysis, one after the other: each is computed once, kept, and taken up again after an
interruption.

What is predictable comes from one pass over each split; what replacing it costs is measured by running the
model with replaced outputs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchcram.pretrained.analysis.alone import EachAlone, all_alone, best_sets
from torchcram.pretrained.analysis.gather import PassCost, gather_all, stage_of
from torchcram.pretrained.analysis.harm import Forecast, learn_all_harm
from torchcram.pretrained.analysis.judged import Judged, judge_sets
from torchcram.pretrained.analysis.layer_figures import closed_forms
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.analysis.refit import Refitted, fit_all, refit_sets
from torchcram.pretrained.analysis.ridge import LinearProbe
from torchcram.pretrained.analysis.routed import Routed, route_all
from torchcram.pretrained.analysis.scoring import Scored, score_test
from torchcram.pretrained.analysis.site_probes import SiteProbes, solve
from torchcram.pretrained.analysis.state_probe import StateProbe
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.local_attention import LocalAttention, local_attention
from torchcram.pretrained.texts import SPLITS

STAGES = ("figures", "scores", "each", "alone", "harm", "refit", "judged", "routed")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was measured; the attributes are the results of the stages.

    Attributes:
        cost: of the fit pass.
        solution_seconds: from sums to probes.
        stage_seconds: of the other stages.
        figures: of each block, in closed form.
        scored: scores of single operations on the test split.
        alone: each block alone, on select text.
        looked_at: share of its entries that a replaced block still looks at, in a window of full length.
        refit_changes: change of the loss on select text, by number of replaced layers.
        judged: variants on test text: ``replace-k``, ``plain-k``, ``drop_same-k``, ``drop_best-k``.
        routed: one for each policy and skip rate.
    """

    cost: PassCost
    solution_seconds: float
    stage_seconds: dict[str, float]
    figures: list[dict[str, Any]]
    scored: Scored
    alone: EachAlone
    looked_at: float
    refit_changes: dict[int, float]
    judged: Judged
    routed: list[Routed]


def measure(study: Study) -> Measured:
    """Go through all stages of a study.

    Raises:
        ValueError: if the model cannot be run layer by layer.
        FloatingPointError: if the model's precision overflows.
    """
    layerwise, local = Layerwise(study.model, study.sites), _local(study)
    cost, mlps = gather_all(study)
    start = time.perf_counter()
    probes = solve(study, local)
    solution = time.perf_counter() - start
    blocks = [probe.block for probe in probes]
    figures = study.kept("figures", list[dict[str, Any]], lambda: closed_forms(study, probes))
    scored = study.kept("scores", Scored, lambda: score_test(study, probes, mlps))
    each = study.kept("each", list[LinearProbe], lambda: fit_all(study, layerwise, probes))
    of_each = _with_summaries(dict(enumerate(each)), probes)
    alone = study.kept("alone", EachAlone, lambda: all_alone(study, layerwise, list(of_each.values())))
    forecasts = study.kept("harm", list[Forecast], lambda: learn_all_harm(study, blocks))
    sets = best_sets(alone.replaced, study.settings.replace)
    refitted = study.kept("refit", Refitted, lambda: refit_sets(study, layerwise, probes, sets))
    of_sets = {size: _with_summaries(linear, probes) for size, linear in refitted.probes.items()}
    judged = study.kept(
        "judged", Judged, lambda: judge_sets(study, layerwise, alone, refitted=of_sets, plain=blocks)
    )
    routed = study.kept(
        "routed", list[Routed], lambda: route_all(study, layerwise, probes=blocks, forecasts=forecasts)
    )
    return Measured(
        cost=cost,
        solution_seconds=solution,
        stage_seconds={stage: study.store.seconds(stage) for stage in STAGES},
        figures=figures,
        scored=scored,
        alone=alone,
        looked_at=_looked_at(local, study.settings.context),
        refit_changes=refitted.changes,
        judged=judged,
        routed=routed,
    )


def tidy(study: Study) -> None:
    """Remove what only an unfinished analysis needs: the sums of all layers are large."""
    for split in SPLITS:
        study.store.forget(stage_of(split))


def _local(study: Study) -> Sequence[LocalAttention | None]:
    """Attention on a buffer of every block."""
    reach = study.settings.reach
    return local_attention(study.model, study.sites, reach=reach) if reach else [None] * len(study.sites)


def _with_summaries(linear: Mapping[int, LinearProbe], probes: Sequence[SiteProbes]) -> dict[int, StateProbe]:
    """Return probes with a memory, by number of the site, from what is kept of them."""
    return {
        number: StateProbe(summary=probes[number].summary, linear=probe) for number, probe in linear.items()
    }


def _looked_at(local: Sequence[LocalAttention | None], context: int) -> float:
    return 0.0 if local[0] is None else local[0].looked_at(context) / (context * (context + 1) / 2)
