"""What replacing or dropping whole layers costs: the change of the loss on test text, which only measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchcram.pretrained.analysis.alone import EachAlone, best_sets
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.analysis.prefixes import Prefixes, Stand, dropping, replacing
from torchcram.pretrained.analysis.ridge import LinearProbe
from torchcram.pretrained.analysis.state_probe import StateProbe
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.sites import AttentionSite


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Loss changes on test text.

    Attributes:
        base: loss of the untouched model.
        documents: number of the document of each window.
        predictions: of each window.
        changes: of each variant, summed over each window's predictions.
    """

    base: float
    documents: tuple[int, ...]
    predictions: tuple[int, ...]
    changes: dict[str, tuple[float, ...]]

    def change(self, variant: str) -> float:
        """Return the mean change of the loss of a variant, in nats per token."""
        return sum(self.changes[variant]) / sum(self.predictions)


@torch.no_grad()
def judge(
    layerwise: Layerwise,
    sites: Sequence[AttentionSite],
    windows: Sequence[Tensor],
    variants: Mapping[str, Mapping[int, Stand]],
    *,
    documents: Sequence[int],
    advance: Callable[[int], None] = lambda tokens: None,
) -> Judged:
    """Measure variants of the model on the same windows."""
    changes: dict[str, list[float]] = {name: [] for name in variants}
    total = 0.0
    for ids in windows:
        prefixes = Prefixes(layerwise, sites, ids)
        base = float(prefixes.losses({}).double().sum())
        total += base
        for name, stands in variants.items():
            changes[name].append(float(prefixes.losses(stands).double().sum()) - base)
        advance(len(ids))
    predictions = tuple(len(ids) - 1 for ids in windows)
    summed = {name: tuple(values) for name, values in changes.items()}
    return Judged(
        base=total / sum(predictions), documents=tuple(documents), predictions=predictions, changes=summed
    )


def judge_sets(
    study: Study,
    layerwise: Layerwise,
    alone: EachAlone,
    *,
    refitted: Mapping[int, Mapping[int, StateProbe]],
    plain: Sequence[LinearProbe],
) -> Judged:
    """Judge the best sets of layers of a study, each replaced and dropped.

    Args:
        study: the analysis.
        layerwise: its model.
        alone: ranks the layers.
        refitted: the probes of each set.
        plain: probes of all blocks, from input to block output.
    """
    windows = study.windows("test", study.settings.judge_tokens)
    documents = [window.document for window in windows]
    advance = study.progress.stage("judge replaced layers", total=sum(len(window.ids) for window in windows))
    variants = _variants(alone, study.settings.replace, refitted=refitted, plain=plain)
    return judge(
        layerwise,
        study.sites,
        study.on_device(windows),
        variants,
        documents=documents,
        advance=advance,
    )


def _variants(
    alone: EachAlone,
    sizes: Sequence[int],
    *,
    refitted: Mapping[int, Mapping[int, StateProbe]],
    plain: Sequence[LinearProbe],
) -> dict[str, dict[int, Stand]]:
    """The stand-ins of every variant, by number of the block."""
    variants: dict[str, dict[int, Stand]] = {}
    drops = best_sets(alone.dropped, sizes)
    for size, numbers in best_sets(alone.replaced, sizes).items():
        probes = refitted[size]
        variants[f"replace-{size}"] = {number: replacing(probe) for number, probe in probes.items()}
        variants[f"plain-{size}"] = {number: replacing(plain[number]) for number in numbers}
        variants[f"drop_same-{size}"] = dict.fromkeys(numbers, dropping)
        variants[f"drop_best-{size}"] = dict.fromkeys(drops[size], dropping)
    return variants
