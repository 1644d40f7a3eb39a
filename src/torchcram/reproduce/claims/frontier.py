"""Which accuracy each method reaches at which read rate."""

from __future__ import annotations

from torchcram.reproduce.claim import READS, Claim, Goal, Method, Pair, Picture
from torchcram.reproduce.methods import (
    CRAM,
    MIXTURE_OF_DEPTHS,
    NO_CONSOLIDATION,
    PAPER,
    ROUTERS,
    SEQBOAT,
    SLIDING_WINDOW,
    STATIC,
    STATIC_HYBRID,
    STATIC_ROUTER,
    TRANSFORMER,
    priced,
    with_option,
)


def _at_other_prices(method: Method) -> list[Method]:
    """Return a method at two prices: a third and three times its own."""
    own = method.changes.get("controller.price_most", 0.3)
    return [priced(method, float(f"{factor * own:.1g}")) for factor in (0.3, 3.0)]


FRONTIER = Claim(
    name="01_srcd_main",
    folder="01_srcd_main/frontier",
    pairs=(Pair(ours="cram", theirs=(*(method.name for method in (*ROUTERS, *STATIC)), "cram_paper")),),
    methods=(
        *(
            version
            for method in (CRAM, NO_CONSOLIDATION, STATIC_ROUTER, SEQBOAT)
            for version in (method, *_at_other_prices(method))
        ),
        MIXTURE_OF_DEPTHS,
        *(with_option(MIXTURE_OF_DEPTHS, "capacity", share) for share in (0.0625, 0.25, 0.5)),
        *STATIC,
        *(with_option(SLIDING_WINDOW, "window", size) for size in (16, 32)),
        with_option(STATIC_HYBRID, "attention_every", 1),
        PAPER,
    ),
    figures=(
        "retrieval_accuracy",
        "recurring_accuracy",
        "novel_accuracy",
        *READS,
        "dynamics_mse",
        "training_attention_share",
    ),
    goals=(
        Goal(method="cram", figure="retrieval_accuracy", sign=">=", than=("transformer",), plus=-0.005),
        *(
            Goal(method="cram", figure="attention_share", sign="<=", than=(name,), times=0.2)
            for name in ("transformer", "sliding_window", "static_hybrid")
        ),
        *(
            Goal(method="cram", figure="any_layer_read_rate", sign="<=", than=(method.name,))
            for method in ROUTERS
        ),
        *(
            Goal(method="cram", figure="retrieval_accuracy", sign=">=", than=(method.name,), plus=-0.005)
            for method in ROUTERS
        ),
    ),
    headline={
        "demo": tuple(method.name for method in (CRAM, *ROUTERS, *STATIC, PAPER)),
        "full": tuple(method.name for method in (CRAM, SEQBOAT, STATIC_ROUTER, TRANSFORMER)),
    },
    picture=Picture(kind="frontier", title="Accuracy against reads"),
)
