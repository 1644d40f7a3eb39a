"""The claims, as data: a file each.

To add one: say what is trained, what is shown, and which bounds make it reproduced. What it asks and how its
table is read stand in the README of its folder under ``experiments/``.
"""

from __future__ import annotations

from torchcram.reproduce.claim import Claim
from torchcram.reproduce.claims.ablations import ABLATIONS
from torchcram.reproduce.claims.drift_override import DRIFT_OVERRIDE
from torchcram.reproduce.claims.frontier import FRONTIER
from torchcram.reproduce.claims.new_patterns import CONSOLIDATION_CURVE
from torchcram.reproduce.claims.recurrence import RECURRENCE
from torchcram.reproduce.claims.static_routing import STATIC_BOUND
from torchcram.reproduce.claims.transition import TRANSITION
from torchcram.reproduce.claims.unseen_tasks import TRANSFER
from torchcram.reproduce.tuning import TUNING
from torchcram.strict import require_choice

IN_ORDER = (
    TUNING,
    FRONTIER,
    TRANSITION,
    STATIC_BOUND,
    TRANSFER,
    CONSOLIDATION_CURVE,
    ABLATIONS,
    RECURRENCE,
    DRIFT_OVERRIDE,
)
CLAIMS: dict[str, Claim] = {claim.name: claim for claim in IN_ORDER}


def claims_named(name: str) -> list[Claim]:
    """Return the claim of that name, or all of the paper's for ``"all"``: the tuning that they rest on has no
    goals, and goes by its own name.

    Raises:
        ValueError: for an unknown name, with the nearest.
    """
    return (
        [claim for claim in CLAIMS.values() if claim.goals]
        if name == "all"
        else [CLAIMS[require_choice("claim", name, [*CLAIMS, "all"])]]
    )
