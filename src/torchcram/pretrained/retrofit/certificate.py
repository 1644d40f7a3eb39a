"""A certificate of a retrofitted model: what was promised, at what price of a read, and when it is void."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from torchcram.pretrained.retrofit.drift import Drift, drift_of, mean_harm
from torchcram.runs.files import load_json
from torchcram.strict import StrictConfig

FILE = "certificate.json"


class Realised(StrictConfig):
    """What came of calibrating on random halves of the documents, and testing on the others.

    Attributes:
        splits: how many.
        calibration_documents, test_documents: of each.
        mean_risk, standard_error: share of differing next tokens on the others.
        reads: share of token x layer that they read.
        holds: whether the mean is at most the tolerance and two standard errors.
    """

    splits: int
    calibration_documents: int
    test_documents: int
    mean_risk: float
    standard_error: float
    reads: float
    holds: bool


class Certificate(StrictConfig):
    """Of one tolerance.

    The promise: for a further document of the same kind, the expected share of next tokens that differ from
    the untouched model's is at most the tolerance, over the calibration documents and that one (conformal
    risk control, Angelopoulos et al. 2022, arXiv 2208.02814).

    Attributes:
        risk_tolerance: share of next tokens that may differ.
        certified: whether a price keeps the promise.
        price: of a read, in nats.
        risk: share that differed on the calibration documents.
        reads: share of token x layer that they read.
        documents, document_tokens: calibration documents, and the longest of them.
        next_price, next_risk: the next price that was tried, and why it is not it; None if it was the last.
        harms: of each document, what the routers expect: see :mod:`torchcram.pretrained.retrofit.drift`.
        realised: over splits; None if nobody asked.
    """

    risk_tolerance: float
    certified: bool
    price: float
    risk: float
    reads: float
    documents: int
    document_tokens: int
    next_price: float | None = None
    next_risk: float | None = None
    harms: tuple[float, ...]
    realised: Realised | None = None

    def drift(self, model: Any, documents: Sequence[Int[Tensor, " _"]]) -> Drift:
        """Say whether the certificate is void for some documents.

        Args:
            model: the certified one, at rest.
            documents: tokens, about as long as those of the calibration.
        """
        with torch.no_grad():
            return drift_of(self.harms, [mean_harm(model, ids) for ids in documents])

    def told(self) -> str:
        """Return the promise in words."""
        if not self.certified:
            return (
                f"{self.documents} documents certify no price for a risk of {self.risk_tolerance:.1%}: at "
                f"the smallest, {self.risk:.1%} of the next tokens differ."
            )
        return (
            f"In expectation, at most {self.risk_tolerance:.1%} of the next tokens differ from the untouched "
            f"model's. {self.documents} documents of up to {self.document_tokens:,} tokens certify it. There "
            f"{self.risk:.1%} differ, and {self.reads:.1%} of token x layer read."
        )


def load_certificate(folder: str | Path) -> Certificate:
    """Return the certificate of a saved model.

    Raises:
        ValueError: if it has none, or it is damaged.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        raise ValueError(f"{folder} has no certificate: make one with torchcram retrofit --risk 0.05")
    return Certificate.parse(load_json(file))
