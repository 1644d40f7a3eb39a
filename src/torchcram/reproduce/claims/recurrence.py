"""How much must recur before consolidation pays."""

from __future__ import annotations

from torchcram.reproduce.claim import Claim, Goal, Method, Picture
from torchcram.reproduce.methods import changed


def _recurring(share: float) -> Method:
    return changed(
        f"recurrence{round(100 * share)}",
        f"{share:.0%} recur",
        {"task.recurrence": share},
        family="CRAM",
        at=share,
    )


RECURRENCE = Claim(
    name="07_recurrence",
    folder="07_recurrence",
    methods=tuple(_recurring(share) for share in (0.0, 0.25, 0.5, 0.7, 0.9, 1.0)),
    figures=(
        "any_layer_read_rate",
        "any_layer_floor",
        "retrieval_accuracy",
        "reduction_consolidation",
        "transition_step",
    ),
    goals=(
        *(
            Goal(
                method=f"recurrence{share}",
                figure="any_layer_read_rate",
                sign="<=",
                of="any_layer_floor",
                times=1.25,
                plus=0.001,
            )
            for share in (50, 70, 90, 100)
        ),
        *(
            Goal(method=f"recurrence{share}", figure="retrieval_accuracy", sign=">=", number=0.99)
            for share in (25, 50, 70, 90, 100)
        ),
        Goal(method="recurrence25", figure="reduction_consolidation", sign="<=", number=1.05),
    ),
    picture=Picture(
        kind="sweep",
        title="Reads against what recurs",
        x="share of queries that recur",
        y="any_layer_read_rate",
    ),
)
