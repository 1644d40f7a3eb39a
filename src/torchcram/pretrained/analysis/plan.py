"""The plan of an analysis: the most that can be replaced or skipped at an allowed cost.

Select text says what it costs; the test text has no say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchcram.pretrained.analysis.alone import ranking
from torchcram.pretrained.analysis.measure import Measured
from torchcram.pretrained.analysis.routed import Routed
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.sites import AttentionSite

# What the plan may cost, in nats per token.
ALLOWED = 0.02
POLICY = "predicted_harm"


def make_plan(study: Study, measured: Measured) -> dict[str, Any]:
    """Return the content of ``plan.json``."""
    affordable = [one for one in measured.routed if one.policy == POLICY and one.select.mean_score <= ALLOWED]
    most = max(affordable, key=lambda one: one.wanted_rate, default=None)
    return {
        "allowed_loss_change": ALLOWED,
        "layers": _layers(study.sites, measured),
        "tokens": None if most is None else _tokens(study.sites, most),
    }


def _layers(sites: Sequence[AttentionSite], measured: Measured) -> dict[str, Any]:
    order, changes = ranking(measured.alone.replaced), measured.refit_changes
    size = max((size for size, change in changes.items() if change <= ALLOWED), default=0)
    return {
        "replace": sorted(sites[number].layer for number in order[:size]),
        "predicted_loss_change": changes.get(size, 0.0),
        "by_size": {str(size): change for size, change in changes.items()},
        "ranking": [sites[number].layer for number in order],
    }


def _tokens(sites: Sequence[AttentionSite], routed: Routed) -> dict[str, Any]:
    by_layer = zip(sites, routed.select.by_layer, strict=True)
    return {
        "policy": routed.policy,
        "skip_rate": routed.wanted_rate,
        "threshold": routed.select.threshold,
        "predicted_loss_change": routed.select.mean_score,
        "skip_rate_by_layer": {str(site.layer): share for site, share in by_layer},
    }
