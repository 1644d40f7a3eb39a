"""Whether what has been consolidated spares reads on unseen tasks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

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


def _learning(unseen: str) -> Method:
    """Return CRAM transferred with a semantic memory that goes on learning."""
    frozen, _ = _transfer(unseen)
    return replace(
        frozen,
        name=f"{unseen}_learning",
        title=f"{UNSEEN[unseen]}, semantic memory learns",
        changes={**frozen.changes, "training.frozen": ["trunk", "router"]},
    )


def _goals(unseen: str) -> tuple[Goal, ...]:
    """Return what a transferred model must spare, without losing answers."""
    one = partial(Goal, method=f"{unseen}_frozen", sign=">=")
    return (
        one(figure="keys_saved", number=0.6),
        one(figure="retrieval_accuracy", than=(f"{unseen}_scratch",), times=0.99),
        one(figure="reads_saved", number=0.48),
    )


AT_THE_FLOOR = Goal(
    method="new_keys_learning",
    figure="any_layer_read_rate",
    sign="<=",
    of="any_layer_floor",
    times=1.25,
    plus=0.001,
)
TRANSFER = Claim(
    name="04_transfer",
    folder="04_transfer",
    methods=(CRAM, *(method for unseen in UNSEEN for method in _transfer(unseen)), _learning("new_keys")),
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
    goals=(*(goal for unseen in UNSEEN for goal in _goals(unseen)), AT_THE_FLOOR),
    picture=Picture(kind="dots", title="Transferred against from scratch"),
)
