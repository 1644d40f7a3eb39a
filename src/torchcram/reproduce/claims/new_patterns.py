"""How the read rate of a new pattern falls with its exposures."""

from __future__ import annotations

from torchcram.reproduce.claim import Claim, Goal, Pair, Picture, Share
from torchcram.reproduce.methods import NO_CONSOLIDATION, SEQBOAT, STATIC_ROUTER, changed, under

# Routers are left alone while everything reads: what each gains before retrieval works would teach them to
# close.
LATE_PATTERNS = {
    "training.steps": Share(1.5),
    "training.decay_share": 0.15,
    "controller.acquisition_routers": False,
    "task.patterns": 40,
    "task.introduce_at": [(Share(0.75), 30)],
}

CONSOLIDATION_CURVE = Claim(
    name="05_consolidation_curve",
    folder="05_consolidation_curve",
    methods=(
        changed("zipf", "patterns by Zipf's law", {**LATE_PATTERNS, "task.pattern_law": "zipf"}),
        changed("uniform", "patterns equally often", LATE_PATTERNS),
        *(under("late", LATE_PATTERNS, method) for method in (NO_CONSOLIDATION, SEQBOAT, STATIC_ROUTER)),
    ),
    pairs=(
        Pair(ours="uniform", theirs=("late_cram_no_consolidation", "late_seqboat", "late_static_router")),
    ),
    figures=(
        "exponent",
        "exponent_low",
        "exponent_high",
        "aic_exponential_less_power",
        "aic_logistic_less_power",
        "retrieval_accuracy",
        "any_layer_read_rate",
    ),
    goals=(
        Goal(method="zipf", figure="aic_exponential_less_power", sign=">=", number=0.0),
        Goal(method="zipf", figure="aic_logistic_less_power", sign=">=", number=0.0),
        Goal(method="zipf", figure="exponent_low", sign="<=", number=0.47),
        Goal(method="zipf", figure="exponent_high", sign=">=", number=0.39),
    ),
    picture=Picture(kind="exposures", title="Reads against encounters of a new pattern"),
)
