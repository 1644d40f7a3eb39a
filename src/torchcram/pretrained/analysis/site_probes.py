"""From sums to probes: all blocks, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float64
from torch import Tensor

from torchcram.pretrained.analysis.gather import gathered
from torchcram.pretrained.analysis.moments import covariances
from torchcram.pretrained.analysis.ridge import LinearProbe, chosen_on
from torchcram.pretrained.analysis.site_sums import SiteSums
from torchcram.pretrained.analysis.state_probe import Summary, summary_of
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.local_attention import LocalAttention
from torchcram.pretrained.sites import AttentionSite


@dataclass(frozen=True, kw_only=True)
class SiteProbes:
    """The probes of one block, fitted and chosen, with the projection they stand behind.

    Attributes:
        heads: from the input to the heads side by side, float64.
        block: from the input to the block's output, float32.
        weight, bias: of the projection.
        mean: of the heads, over the fit split.
        summary: features of the probe with a memory.
    """

    heads: LinearProbe
    block: LinearProbe
    weight: Float64[Tensor, "heads_width width"]
    bias: Float64[Tensor, " width"]
    mean: Float64[Tensor, " heads_width"]
    summary: Summary


def fit_probes(
    site: AttentionSite,
    fit: SiteSums,
    select: SiteSums,
    *,
    directions: int,
    local: LocalAttention | None = None,
) -> SiteProbes:
    """Solve for the probes of a block; ``directions`` and ``local`` are those of the summary."""
    weight, bias = site.output_map()
    of_fit, of_select = covariances(fit.moments), covariances(select.moments)
    heads = chosen_on(of_select, of_fit, output=weight)
    block = heads.then(weight, bias)
    summary = summary_of(block, of_fit, directions=min(directions, site.width))
    return SiteProbes(
        heads=heads,
        block=block.float(),
        weight=weight,
        bias=bias,
        mean=of_fit.mean_y,
        summary=replace(summary, local=local),
    )


def solve(study: Study, local: Sequence[LocalAttention | None]) -> list[SiteProbes]:
    """Solve for the probes of all blocks of a study, given each block's attention on a buffer."""
    advance = study.progress.stage("solve for the probes", total=len(study.sites), unit="layers")
    probes = []
    for number, (site, near) in enumerate(zip(study.sites, local, strict=True)):
        fit, select, _ = gathered(study, number)
        directions = study.settings.state_directions
        probes.append(fit_probes(site, fit, select, directions=directions, local=near))
        advance(1)
    return probes
