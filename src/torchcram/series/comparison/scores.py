"""How good predicted probabilities are, in the words of the tables.

What does not apply to a problem is absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from torchcram.strict import optional

# Bins of the calibration plot, of equal width.
BINS = 10


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a fitted method says about one part of a split.

    Attributes:
        probability: of each class.
        truth: the class.
        attention_share: keys scanned over what dense causal attention would scan; None for what reads in no
            comparable way.
        per_second: series (or windows) judged in a second of one core.
    """

    probability: Float64[np.ndarray, "entries classes"]
    truth: Int[np.ndarray, " entries"]
    attention_share: float | None
    per_second: float


def log_loss(outcome: Outcome) -> float:
    """Return the mean negative log-likelihood, in nats."""
    chance = outcome.probability[np.arange(len(outcome.truth)), outcome.truth]
    return float(-np.log(np.maximum(chance, 1e-12)).mean())


def scores(outcome: Outcome) -> dict[str, float]:
    """Return area under the ROC and the precision-recall curve and the Brier score for two classes;
    accuracy and macro-F1 for more.
    """
    metrics, chosen = optional("sklearn.metrics", extra="tune"), outcome.probability.argmax(1)
    if outcome.probability.shape[1] > 2:
        return {
            "accuracy": float((chosen == outcome.truth).mean()),
            "macro_f1": float(metrics.f1_score(outcome.truth, chosen, average="macro", zero_division=0)),
        }
    chance = outcome.probability[:, 1]
    return {
        "auroc": float(metrics.roc_auc_score(outcome.truth, chance)),
        "auprc": float(metrics.average_precision_score(outcome.truth, chance)),
        "brier": float(np.square(chance - outcome.truth).mean()),
        "accuracy": float((chosen == outcome.truth).mean()),
    }


def calibration(outcome: Outcome) -> list[dict[str, Any]]:
    """Return, for each bin that is not empty, how many predictions fell into it, their mean, and how often
    they came true.

    With two classes predictions are those of class 1, with more those of the most probable one.
    """
    two = outcome.probability.shape[1] == 2
    said = outcome.probability[:, 1] if two else outcome.probability.max(1)
    came = outcome.truth == 1 if two else outcome.probability.argmax(1) == outcome.truth
    place = np.minimum((said * BINS).astype(int), BINS - 1)
    members = [place == number for number in range(BINS)]
    return [
        {"count": int(m.sum()), "said": float(said[m].mean()), "came": float(came[m].mean())}
        for m in members
        if m.any()
    ]
