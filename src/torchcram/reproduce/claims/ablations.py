"""What each part contributes."""

from __future__ import annotations

from torchcram.reproduce.claim import READS, Claim, Goal, Part, Picture, Share
from torchcram.reproduce.methods import CRAM, NO_CONSOLIDATION, NO_TRACE, changed

ABLATIONS = Claim(
    name="06_ablations",
    folder="06_ablations",
    methods=(
        CRAM,
        changed("no_acquisition", "no acquisition phase", {"controller.acquire_steps": 0}),
        changed(
            "curriculum",
            "lengthened while it acquires",
            {
                "training.length_curriculum": [
                    (0, Part(0.25)),
                    (Share(0.1), Part(0.5)),
                    (Share(0.2), Part(1.0)),
                ]
            },
        ),
        NO_CONSOLIDATION,
        changed("observed_quality", "no familiarity: quality observed", {"model.mixer": "cram_observed"}),
        changed("no_exploration", "no exploration", {"controller.exploration": 0.0}),
        changed("no_caution", "no caution", {"controller.caution_start": 0.0}),
        changed(
            "fixed_price", "price fixed at 0.1", {"controller.price_start": 0.1, "controller.price_most": 0.1}
        ),
        changed(
            "fading_price", "price that fades where the router is sure", {"controller.steady_price": False}
        ),
        NO_TRACE,
        changed("low_rank", "low rank d/16", {"model.options": {"semantic": "low_rank", "surprise": False}}),
        changed(
            "low_rank_wide",
            "low rank 32",
            {"model.options": {"semantic": "low_rank", "surprise": False, "rank": 32}},
        ),
        changed(
            "few_slots", "32 slots, no surprise trace", {"model.options": {"surprise": False, "slots": 32}}
        ),
        changed(
            "attached",
            "low rank d/16 that shapes the trunk",
            {"model.options": {"semantic": "low_rank", "surprise": False, "detach": False}},
        ),
        changed("ct_ode", "working memory ct_ode", {"model.options": {"working": "ct_ode"}}),
        changed("gumbel3", "router gumbel3", {"model.options": {"router": "gumbel3"}}),
        changed("same_rate", "router as slow as the trunk", {"training.fast_factor": 1.0}),
    ),
    figures=(
        "retrieval_accuracy",
        "recurring_accuracy",
        "novel_accuracy",
        *READS,
        "dynamics_mse",
        "parameters",
    ),
    goals=(
        Goal(method="cram", figure="retrieval_accuracy", sign=">=", number=0.99),
        Goal(method="cram", figure="any_layer_read_rate", sign="<=", of="any_layer_floor", times=1.25),
        Goal(
            method="cram_no_consolidation",
            figure="any_layer_read_rate",
            sign=">=",
            than=("cram",),
            times=1.25,
        ),
        Goal(method="no_acquisition", figure="retrieval_accuracy", sign="<=", than=("cram",), plus=-0.05),
        Goal(method="low_rank", figure="any_layer_read_rate", sign=">=", than=("no_trace",), times=1.25),
        Goal(
            method="low_rank_wide", figure="any_layer_read_rate", sign=">=", than=("few_slots",), times=1.25
        ),
        Goal(method="ct_ode", figure="dynamics_mse", sign=">=", than=("cram",), times=1.1),
    ),
    picture=Picture(kind="dots", title="One part off at a time"),
)
