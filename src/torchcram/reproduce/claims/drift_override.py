"""What happens when what recurs changes, and when the context overrides it."""

from __future__ import annotations

from torchcram.reproduce.claim import READS, Claim, Goal, Method, Pair, Picture, Share
from torchcram.reproduce.methods import CRAM, NO_TRACE, ROUTERS, UNTRACED, changed, under

OVERRIDE = {"task.override": 0.2}
# Life after training: half as many steps again, from the weights and at the price that training ended with;
# the map changes after a quarter of them.
LIFE = {
    "training.steps": Share(0.5),
    "training.warmup_steps": 10,
    "training.decay_share": 0.3,
    "task.drift_at": Share(0.125),
    "controller.acquire_steps": 0,
    "controller.caution_start": 1.0,
    "controller.caution_step": 0.02,
}
SLOWER = 0.1


def _drifting(method: Method, name: str, title: str) -> Method:
    """Return what goes on where the finished run of a method ended, at a tenth of its learning rate."""
    own = {"training.learning_rate": SLOWER * method.changes["training.learning_rate"]}
    price = (
        {"controller.price_start": method.changes["controller.price_most"]}
        if "controller.price_most" in method.changes
        else {}
    )
    return Method(
        name=name, title=f"drift, {title}", changes={**method.changes, **LIFE, **own, **price}, base=method
    )


DRIFT_OVERRIDE = Claim(
    name="08_drift_override",
    folder="08_drift_override",
    methods=(
        _drifting(CRAM, "drift", "CRAM"),
        _drifting(NO_TRACE, "drift_no_trace", "no surprise trace"),
        *(_drifting(method, f"drift_{method.name}", method.title) for method in ROUTERS),
        changed("override", "override, CRAM", OVERRIDE),
        changed("override_no_trace", "override, no surprise trace", {**OVERRIDE, **UNTRACED}),
        *(under("override", OVERRIDE, method) for method in ROUTERS),
    ),
    pairs=tuple(
        Pair(
            ours=kind,
            theirs=(f"{kind}_no_trace", *(f"{kind}_{method.name}" for method in ROUTERS)),
            figures=("retrieval_accuracy", "overridden_accuracy", "any_layer_read_rate", "attention_share"),
        )
        for kind in ("drift", "override")
    ),
    figures=(
        "retrieval_accuracy",
        "recurring_accuracy",
        "novel_accuracy",
        "overridden_accuracy",
        *READS[:2],
        "drift_base_rate",
        "drift_peak_rate",
        "recovery_steps",
    ),
    goals=(
        Goal(method="drift", figure="recovery_steps", sign="<=", of="steps", times=0.5),
        Goal(method="drift", figure="drift_peak_rate", sign=">=", of="drift_base_rate", times=1.5),
        Goal(method="drift", figure="retrieval_accuracy", sign=">=", number=0.99),
        Goal(method="drift", figure="any_layer_read_rate", sign="<=", of="any_layer_floor", times=1.25),
        Goal(method="override", figure="overridden_accuracy", sign=">=", number=0.98),
        Goal(method="override", figure="any_layer_read_rate", sign="<=", of="any_layer_floor", plus=0.003),
        Goal(
            method="override_no_trace",
            figure="overridden_accuracy",
            sign="<=",
            than=("override",),
            plus=-0.05,
        ),
    ),
    headline={
        "demo": tuple(
            f"{kind}{name}"
            for kind in ("drift", "override")
            for name in ("", "_no_trace", "_cram_no_consolidation", "_static_router")
        )
    },
    picture=Picture(
        kind="training",
        title="The map changes after a quarter of the steps: reads of each router",
        y="any_layer_read_rate",
        methods=("drift", "drift_no_trace", *(f"drift_{method.name}" for method in ROUTERS)),
    ),
)
