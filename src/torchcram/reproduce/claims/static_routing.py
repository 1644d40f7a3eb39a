"""What a router that decides by the token alone can answer, and what escapes its bound."""

from __future__ import annotations

from typing import Any

from torchcram.reproduce.claim import Claim, Goal, Method, Pair, Picture, Share
from torchcram.reproduce.methods import (
    CRAM,
    MIXTURE_OF_DEPTHS,
    NO_CONSOLIDATION,
    SEQBOAT,
    SSM,
    STATIC_ROUTER,
    changed,
    under,
)

REDRAWN = {"task.redrawn_map": True}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "redrawn": ("map redrawn", REDRAWN),
    "kept": ("map kept", {}),
    "contextual": ("contextual", {"task.contextual": True}),
    "typeless": ("typeless, map redrawn", {**REDRAWN, "task.typeless": True}),
}
# A quarter of the queries to all of them; fewer where the whole line is not what counts.
READ_SHARES = {
    "redrawn": (0.0125, 0.025, 0.0375, 0.05),
    "kept": (0.0125, 0.025, 0.05),
    "contextual": (0.0125, 0.025),
    "typeless": (0.025,),
}


# Of one layer, so that its reads are those of a step.
ONE_LAYER = Method(
    name="static_one_layer",
    title="static, one layer, at a price",
    changes={**STATIC_ROUTER.changes, "model.layers": 1},
)
# Steps without type flags have other inputs, and so other weights to start from.
TYPELESS = Method(
    name="typeless_one_layer",
    title="static, one layer, at a price, typeless",
    changes={**ONE_LAYER.changes, "task.typeless": True},
)
# A read share moves the router's bias; a router that learns as fast as usual outruns it.
GIVEN_SHARE = {
    "controller.price_start": 0.0,
    "controller.price_most": 0.0,
    "controller.acquire_steps": Share(0.25),
    "training.fast_factor": 0.3,
}


def _static(kind: str, share: float) -> Method:
    """Return a static router that reads for a given share of the tokens, whatever they cost, and that has
    learned to read where the map is kept.
    """
    title, task = KINDS[kind]
    changes = {**task, **ONE_LAYER.changes, **GIVEN_SHARE, "model.options": {"read_share": share}}
    title, family = f"static, {title}, {share:.2%} reads", f"static, {title}"
    return Method(
        name=f"{kind}_reads{share:g}",
        title=title,
        changes=changes,
        family=family,
        at=share,
        base=TYPELESS if "task.typeless" in task else ONE_LAYER,
    )


STATIC_BOUND = Claim(
    name="03_static_bound",
    folder="03_static_bound",
    methods=(
        ONE_LAYER,
        TYPELESS,
        Method(
            name="redrawn_scratch",
            title="static, one layer, map redrawn, from scratch",
            changes={**REDRAWN, **ONE_LAYER.changes},
        ),
        *(_static(kind, share) for kind in KINDS for share in READ_SHARES[kind]),
        Method(name="redrawn_ssm", title="recurrence alone, map redrawn", changes={**REDRAWN, **SSM.changes}),
        SSM,
        CRAM,
        changed("contextual_cram", "CRAM, contextual", {"task.contextual": True}),
        *(
            under("contextual", {"task.contextual": True}, method)
            for method in (NO_CONSOLIDATION, SEQBOAT, MIXTURE_OF_DEPTHS)
        ),
    ),
    pairs=(
        Pair(
            ours="contextual_cram",
            theirs=(
                "contextual_cram_no_consolidation",
                "contextual_seqboat",
                "contextual_mixture_of_depths",
                "contextual_reads0.025",
            ),
        ),
    ),
    figures=(
        "retrieval_accuracy",
        "any_layer_read_rate",
        "static_bound",
        "above_static_bound",
        "recurring_accuracy",
        "novel_accuracy",
        "silent_recurring_accuracy",
        "silent_novel_accuracy",
    ),
    goals=(
        *(
            Goal(method=f"redrawn_reads{share:g}", figure="above_static_bound", sign="<=", number=0.03)
            for share in READ_SHARES["redrawn"]
        ),
        *(
            Goal(method=f"typeless_reads{share:g}", figure="above_static_bound", sign="<=", number=0.03)
            for share in READ_SHARES["typeless"]
        ),
        Goal(method="redrawn_reads0.05", figure="retrieval_accuracy", sign=">=", number=0.95),
        Goal(method="cram", figure="above_static_bound", sign=">=", number=0.5),
        Goal(method="contextual_cram", figure="above_static_bound", sign=">=", number=0.5),
    ),
    picture=Picture(kind="bound", title="Static routing against its bound, and what escapes it"),
)
