"""Is this the text that was calibrated on? What the routers expect of a document, against what they expected
of the calibration's.

The statistic needs neither labels nor the untouched model: the mean harm that routers predict of leaving
everything unread. A certificate says nothing about text whose statistics are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from scipy.stats import ks_2samp
from torch import Tensor

from torchcram.pretrained.retrofit.router_fit import predicted_harms

# A certificate is void where so great a difference would come by chance this seldom.
CHANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Of some documents.

    Attributes:
        documents: how many.
        quantile: of their median statistic among the calibration's; 0.5 is its middle.
        chance: probability of so great a difference between texts of one kind (Kolmogorov and Smirnov).
        void: whether the certificate says nothing about these documents.
    """

    documents: int
    quantile: float
    chance: float
    void: bool


def mean_harm(model: Any, ids: Int[Tensor, " tokens"]) -> float:
    """Return the mean harm that routers predict for one document, in nats a possible read; 0 without any."""
    harms = predicted_harms(model, [ids])
    return float(harms.double().mean()) if len(harms) else 0.0


def drift_of(calibrated: Sequence[float], now: Sequence[float]) -> Drift:
    """Compare statistics of documents.

    Args:
        calibrated: of the calibration's documents.
        now: of those at use; the more, the smaller the differences that are seen.

    Raises:
        ValueError: if either is empty.
    """
    if not len(calibrated) or not len(now):
        raise ValueError(f"{len(calibrated)} and {len(now)} documents: both must be there to be compared")
    known, fresh = torch.tensor(calibrated).double(), torch.tensor(now).double()
    chance = float(ks_2samp(known.numpy(), fresh.numpy()).pvalue)
    return Drift(
        documents=len(fresh),
        quantile=float((known <= fresh.median()).double().mean()),
        chance=chance,
        void=chance < CHANCE,
    )
