"""Whether what has been consolidated spares reads on unseen tasks."""

from __future__ import annotations

from torchcram.reproduce.claim import Claim, Goal, Method, Picture
from torchcram.reproduce.methods import CRAM, changed

# Evaluations always see the same sequences: so many that their sampling error, a quarter of a point, lies
# well within the hundredth that is compared.
WATCHED_OFTEN = {"training.evaluate_every": 40, "evaluation.sequences_midway": 192}
FROZEN = {"training.frozen": ["trunk", "semantic", "router"], "evaluation.calibration_sequences": 0}
UNSEEN = {"readout": "new readout", "dynamics": "new dynamics", "new_keys": "half of the keys new"}


def _transfer(unseen: str) -> tuple[Method, Method]:
    """Return CRAM with all but a new head frozen, and CRAM from scratch, on an unseen task, for the same
    number of steps.
    """
    task = {"task.kind": "transfer", "task.unseen": unseen, **WATCHED_OFTEN}
    scratch = changed(f"{unseen}_scratch", f"{UNSEEN[unseen]}, from scratch", task)
    changes = {**CRAM.changes, **task, **FROZEN}
    return Method(
        name=f"{unseen}_frozen",
        title=f"{UNSEEN[unseen]}, transferred",
        changes=changes,
        base=CRAM,
        rival=scratch.name,
    ), scratch


TRANSFER = Claim(
    name="04_transfer",
    folder="04_transfer",
    methods=(CRAM, *(method for unseen in UNSEEN for method in _transfer(unseen))),
    figures=(
        "retrieval_accuracy",
        "any_layer_read_rate",
        "any_layer_floor",
        "reads_saved",
        "keys_saved",
        "keys_to_match",
        "keys_of_rival",
        "dynamics_mse",
    ),
    goals=tuple(
        goal
        for unseen in UNSEEN
        for goal in (
            Goal(method=f"{unseen}_frozen", figure="keys_saved", sign=">=", number=0.6),
            Goal(
                method=f"{unseen}_frozen",
                figure="retrieval_accuracy",
                sign=">=",
                than=(f"{unseen}_scratch",),
                times=0.99,
            ),
            Goal(method=f"{unseen}_frozen", figure="reads_saved", sign=">=", number=0.48),
        )
    ),
    picture=Picture(kind="dots", title="Transferred against from scratch"),
)
