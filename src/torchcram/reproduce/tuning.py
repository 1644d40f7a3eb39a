"""Equal tuning: the same few settings are tried for every method, on seeds that no claim uses, and the choice
follows one rule.

``torchcram reproduce 00_tuning`` trains the trials; a test holds :data:`CHOSEN` against its results. Trials
are at scale mini, and what they choose serves every scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from torchcram.reproduce.claim import READS, Claim, Method, Picture, Row

FIRST_SEED, SEEDS = 100, 3
LEARNING_RATES = (2e-3, 4e-3)
# Most that a read may cost.
PRICES = (0.003, 0.03, 0.1, 0.3)
# The least price that any preset begins with.
LEAST_START = 0.01
# Accuracy that a trial may lack to the best of its method.
WITHIN = 0.005
JUDGED = ("retrieval_accuracy", "any_layer_read_rate", "dynamics_mse")

# Methods whose reads have no price; for the others it is a steady one, lest a router gets stuck that has
# become sure of every token.
UNPRICED = ("mixture_of_depths", "transformer", "sliding_window", "static_hybrid", "ssm")
STEADY = {"controller.steady_price": True}

UNTUNED = {
    method.name: method if method.name in UNPRICED else replace(method, changes={**STEADY, **method.changes})
    for method in (
        Method(name="cram", title="CRAM", changes={}, family="CRAM"),
        Method(
            name="cram_no_consolidation",
            title="CRAM without consolidation",
            changes={"model.mixer": "cram_no_consolidation"},
            family="CRAM without consolidation",
        ),
        Method(name="seqboat", title="SeqBoat", changes={"model.mixer": "seqboat"}, family="SeqBoat"),
        Method(
            name="static_router",
            title="learned static router",
            changes={"model.mixer": "static_router"},
            family="learned static router",
        ),
        Method(
            name="cram_paper",
            title="CRAM by the letter of the paper",
            changes={
                "model.mixer": "cram_paper",
                "controller.acquire_steps": 0,
                "controller.caution_start": 0.0,
            },
        ),
        # Its capacity says how many tokens read: reads have no price beside it.
        Method(
            name="mixture_of_depths",
            title="Mixture-of-Depths",
            changes={
                "model.mixer": "mixture_of_depths",
                "controller.price_start": 0.0,
                "controller.price_most": 0.0,
            },
            family="Mixture-of-Depths",
        ),
        Method(name="transformer", title="dense Transformer", changes={"model.mixer": "transformer"}),
        Method(
            name="sliding_window",
            title="sliding window of 64",
            changes={"model.mixer": "sliding_window"},
            family="sliding window",
        ),
        Method(
            name="static_hybrid",
            title="static hybrid",
            changes={"model.mixer": "static_hybrid"},
            family="static hybrid",
        ),
        Method(name="ssm", title="recurrence alone", changes={"model.mixer": "ssm"}),
    )
}
# Learning rate, and price, of each method: what ``chosen`` says of the committed results.
CHOSEN: dict[str, dict[str, float]] = {
    "cram": {"training.learning_rate": 0.002, "controller.price_most": 0.3},
    "cram_no_consolidation": {"training.learning_rate": 0.002, "controller.price_most": 0.3},
    "seqboat": {
        "training.learning_rate": 0.002,
        "controller.price_start": 0.003,
        "controller.price_most": 0.003,
    },
    "static_router": {"training.learning_rate": 0.002, "controller.price_most": 0.3},
    "cram_paper": {"training.learning_rate": 0.004, "controller.price_most": 0.3},
    "mixture_of_depths": {"training.learning_rate": 0.002},
    "transformer": {"training.learning_rate": 0.004},
    "sliding_window": {"training.learning_rate": 0.002},
    "static_hybrid": {"training.learning_rate": 0.002},
    "ssm": {"training.learning_rate": 0.004},
}


def tuned(method: Method) -> Method:
    """Return a method with the settings that were chosen for it."""
    return replace(method, changes={**method.changes, **CHOSEN.get(method.name, {})})


def trials(method: Method) -> dict[str, Method]:
    """Return a method's trials by name, each with the settings that it tries."""
    settings: list[dict[str, Any]] = [{"training.learning_rate": rate} for rate in LEARNING_RATES]
    if method.name not in UNPRICED:
        settings = [{**setting, **_priced(price)} for setting in settings for price in PRICES]
    tried = [_trial(method, setting) for setting in settings]
    return {trial.name: trial for trial in tried}


def _priced(price: float) -> dict[str, float]:
    """Return the settings of a price; one below those that presets begin with stands from the start."""
    return ({"controller.price_start": price} if price < LEAST_START else {}) | {
        "controller.price_most": price
    }


def _trial(method: Method, setting: dict[str, Any]) -> Method:
    words = {"training.learning_rate": "rate", "controller.price_most": "price"}
    said = [f"{words[name]} {value:g}" for name, value in setting.items() if name in words]
    name = "_".join([method.name, *(one.replace(" ", "") for one in said)])
    return replace(
        method, name=name, title=", ".join([method.title, *said]), changes={**method.changes, **setting}
    )


def settings_of(method: Method, trial: Method) -> dict[str, float]:
    """Return what a trial tries."""
    return {name: value for name, value in trial.changes.items() if method.changes.get(name) != value}


def chosen(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return the settings of each method's best trial: fewest reads among those about as accurate as the
    best; then the least error of the dynamics.

    All figures are means over a trial's seeds. A method whose trials do not all have the same seeds is left
    out.
    """
    best_of = {}
    for name, method in UNTUNED.items():
        of_method = {trial: [row for row in rows if row["method"] == trial] for trial in trials(method)}
        seeds = {tuple(sorted(row["seed"] for row in own)) for own in of_method.values()}
        if len(seeds) == 1 and seeds != {()}:
            means = {
                trial: {figure: fmean(row[figure] for row in own) for figure in JUDGED}
                for trial, own in of_method.items()
            }
            most = max(mean["retrieval_accuracy"] for mean in means.values())
            good = [trial for trial, mean in means.items() if mean["retrieval_accuracy"] >= most - WITHIN]
            best = min(
                good,
                key=lambda trial: (
                    round(means[trial]["any_layer_read_rate"], 4),
                    means[trial]["dynamics_mse"],
                ),
            )
            best_of[name] = settings_of(method, trials(method)[best])
    return best_of


TUNING = Claim(
    name="00_tuning",
    folder="00_tuning",
    methods=tuple(trial for method in UNTUNED.values() for trial in trials(method).values()),
    figures=("retrieval_accuracy", "recurring_accuracy", "novel_accuracy", *READS, "dynamics_mse"),
    goals=(),
    picture=Picture(kind="dots", title="What each setting came to"),
    scales=("mini",),
    first_seed=FIRST_SEED,
    seeds=SEEDS,
)
