"""Whether attention use falls during training, when, and whose else falls."""

from __future__ import annotations

from torchcram.reproduce.claim import READS, Claim, Goal, Pair, Picture, Share
from torchcram.reproduce.methods import CRAM, PAPER, ROUTERS, TRANSFORMER, changed

TRANSITION = Claim(
    name="02_transition",
    folder="02_transition",
    pairs=(Pair(ours="cram", theirs=(*(method.name for method in ROUTERS), "transformer", "cram_paper")),),
    methods=(
        CRAM,
        *ROUTERS,
        TRANSFORMER,
        PAPER,
        changed(
            "cram_priced",
            "CRAM, priced from step 0 under dense reads",
            {"controller.acquisition_price": CRAM.changes.get("controller.price_most", 0.3)},
        ),
        changed(
            "cram_early", "CRAM, switched at 15% of the steps", {"controller.acquire_steps": Share(0.15)}
        ),
        changed(
            "cram_late",
            "CRAM, switched at four fifths of the steps",
            {"controller.acquire_steps": Share(0.8), "controller.plateau_steps": Share(1.0)},
        ),
    ),
    figures=(
        "reduction_any_layer",
        "reduction_need",
        "reduction_consolidation",
        "acquired_at",
        "transition_step",
        "retrieval_accuracy",
        *READS[:2],
    ),
    goals=(
        Goal(method="cram", figure="retrieval_accuracy", sign=">=", number=0.99),
        Goal(method="cram", figure="any_layer_read_rate", sign="<=", of="any_layer_floor", times=1.25),
        Goal(method="cram", figure="reduction_consolidation", sign=">=", number=2.0),
        Goal(method="cram_no_consolidation", figure="reduction_any_layer", sign="<=", number=1.5),
        Goal(method="static_router", figure="reduction_any_layer", sign="<=", number=1.5),
        Goal(method="seqboat", figure="reduction_any_layer", sign="<=", number=1.5),
    ),
    picture=Picture(
        kind="training", title="Whose reads fall while it learns, and when", y="any_layer_read_rate"
    ),
)
