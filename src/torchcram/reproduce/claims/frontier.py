"""Which accuracy each method reaches at which read rate."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

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


# Of as many parameters as CRAM; a width must be a multiple of four times the heads.
WIDE = replace(
    TRANSFORMER,
    name="transformer_wide",
    title="dense Transformer of equal parameters",
    changes={**TRANSFORMER.changes, "model.d_model": 120, "model.options": {"heads": 5}},
)
HEADLINE = (CRAM, NO_CONSOLIDATION, STATIC_ROUTER, TRANSFORMER, WIDE, PAPER)
# What CRAM itself must reach: queries answered, novel ones, reads over their floor, and the step from which
# on they stay within one half of it.
LEAST = {"demo": (0.995, 0.99, 1.25, 1000), "full": (0.999, 0.997, 1.07, 2000)}


def _least(scale: str) -> tuple[Goal, ...]:
    """Return the bounds on CRAM alone at a scale."""
    right, novel, over, steps = LEAST[scale]
    one = partial(Goal, method="cram", scales=(scale,))
    return (
        one(figure="retrieval_accuracy", sign=">=", number=right),
        one(figure="novel_accuracy", sign=">=", number=novel),
        one(figure="any_layer_read_rate", sign="<=", of="any_layer_floor", times=over),
        one(figure="attention_share", sign="<=", of="attention_share_floor", times=1.25),
        one(figure="transition_step", sign="<=", number=steps),
        one(figure="certified", sign=">=", number=1),
        one(figure="dynamics_mse", sign="<=", than=("transformer",)),
        one(figure="dynamics_mse", sign="<=", than=("transformer_wide",)),
    )


FRONTIER = Claim(
    name="01_srcd_main",
    folder="01_srcd_main",
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
        WIDE,
    ),
    figures=(
        "retrieval_accuracy",
        "recurring_accuracy",
        "novel_accuracy",
        *READS,
        "dynamics_mse",
        "training_attention_share",
        "transition_step",
        "certified",
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
        *(goal for scale in LEAST for goal in _least(scale)),
    ),
    headline={
        "demo": tuple(method.name for method in HEADLINE),
        "full": tuple(method.name for method in (CRAM, STATIC_ROUTER, TRANSFORMER)),
    },
    picture=Picture(
        kind="frontier",
        title="It learns to retrieve, and then to do without",
        course=tuple(method.name for method in HEADLINE[:4]),
    ),
)
