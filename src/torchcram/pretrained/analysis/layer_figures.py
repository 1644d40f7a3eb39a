"""All figures of a layer that have a closed form: explained variance, ranks, controls, canonical
correlations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchcram.pretrained.analysis.controls import STRENGTHS, class_error
from torchcram.pretrained.analysis.gather import gathered
from torchcram.pretrained.analysis.moments import Covariances, covariances
from torchcram.pretrained.analysis.ridge import (
    LinearProbe,
    canonical_correlations,
    cca_bound,
    channel_errors,
    chosen_on,
    error,
    explained,
    rank_curve,
)
from torchcram.pretrained.analysis.site_probes import SiteProbes
from torchcram.pretrained.analysis.site_sums import SiteSums
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.sites import AttentionSite


def layer_figures(
    site: AttentionSite, probes: SiteProbes, fit: SiteSums, select: SiteSums, test: SiteSums
) -> dict[str, Any]:
    """Return the closed-form figures of a block on the test split."""
    of_fit, of_test = (covariances(sums.moments).mapped(probes.weight, probes.bias) for sums in (fit, test))
    block = probes.heads.then(probes.weight, probes.bias)
    correlations = canonical_correlations(of_fit)
    variance = float(of_test.yy.diagonal().sum())
    return {
        "layer": site.layer,
        "name": site.name,
        "explained_variance": explained(block, of_test),
        "explained_variance_by_head": _by_head(site, probes.heads, covariances(test.moments)),
        "strength": probes.heads.strength,
        "rank_curve": {
            str(rank): value
            for rank, value in rank_curve(block, of_fit, of_test, ranks=_ranks(site.width)).items()
        },
        "cca_bound": cca_bound(correlations, width=site.width),
        "controls": _controls(fit, select, test, probes.weight, probes.bias, variance)
        | {"shuffled": _shuffled(fit, select, test)},
        "variance": variance,
    }


def closed_forms(study: Study, probes: Sequence[SiteProbes]) -> list[dict[str, Any]]:
    """Return the closed-form figures of all blocks of a study."""
    return [
        layer_figures(site, probe, *gathered(study, number))
        for number, (site, probe) in enumerate(zip(study.sites, probes, strict=True))
    ]


def _ranks(width: int) -> tuple[int, ...]:
    return (*(rank for rank in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048) if rank < width), width)


def _by_head(site: AttentionSite, probe: LinearProbe, held: Covariances) -> list[float]:
    wrong, variance = (
        values.unflatten(0, (site.heads, site.head_size)).sum(1)
        for values in (channel_errors(probe, held), held.yy.diagonal())
    )
    return (1 - wrong / variance.clamp(min=1e-300)).tolist()


def _controls(
    fit: SiteSums, select: SiteSums, test: SiteSums, weight: Tensor, bias: Tensor, variance: float
) -> dict[str, float]:
    """Explained variance of the class means; their strength is chosen on the select split."""
    squares = {name: _squares(sums, weight) for name, sums in (("select", select), ("test", test))}
    shares = {}
    for name in fit.controls:
        fitted, chooses, judges = (sums.controls[name].mapped(weight) for sums in (fit, select, test))
        best = min(
            STRENGTHS,
            key=lambda strength: class_error(fitted, chooses, strength=strength, squares=squares["select"]),
        )
        shares[name] = 1 - class_error(fitted, judges, strength=best, squares=squares["test"]) / variance
    of_fit, of_test = (covariances(sums.moments) for sums in (fit, test))
    shares["mean"] = -float(((of_test.mean_y - of_fit.mean_y) @ weight).square().sum()) / variance
    return shares


def _squares(sums: SiteSums, weight: Float[Tensor, "heads_width width"]) -> float:
    """Mean squared length of the outputs, without the projection's bias, which cancels."""
    return float((sums.moments.yy @ weight * weight).sum()) / sums.moments.count


def _shuffled(fit: SiteSums, select: SiteSums, test: SiteSums) -> float:
    """Explained variance of a probe whose targets belong to other tokens: what a probe finds where there
    is nothing.
    """
    of_fit, of_select, of_test = (_shuffled_covariances(sums) for sums in (fit, select, test))
    return 1 - error(chosen_on(of_select, of_fit), of_test) / float(of_test.yy.diagonal().sum())


def _shuffled_covariances(sums: SiteSums) -> Covariances:
    plain, channels = covariances(sums.moments), sums.shuffled.shape[1]
    nothing = torch.zeros_like(plain.mean_y[:channels])
    cross = sums.shuffled / plain.count
    return Covariances(
        count=plain.count,
        mean_x=plain.mean_x,
        mean_y=nothing,
        xx=plain.xx,
        xy=cross,
        yy=plain.yy[:channels, :channels],
    )
