"""Which runs share their acquisition: those that differ only in what comes after it.

While a model acquires, every token reads and nothing consolidates, so whatever says how routing, the price of
reads and consolidating go cannot matter yet. Whatever might matter stays, and keeps two runs apart.
"""

from __future__ import annotations

from torchcram.memory.phases import ConsolidationRules
from torchcram.mixers import MIXERS
from torchcram.training.run_config import RunConfig

# Fields of the controller that decide how long acquisition lasts, and what it does to the router.
DECIDING = (
    "acquire_steps",
    "shortest_acquisition",
    "plateau_steps",
    "plateau_gain",
    "settled_loss",
    "acquisition_price",
    "acquisition_routers",
    "steady_price",
)
LATER_LOSSES = ("consolidation", "familiarity", "surprise")
LATER_OPTIONS = ("detach", "quality_variance", "router_noise", "read_share")


def acquisition_of(config: RunConfig) -> RunConfig | None:
    """Return the configuration of a run's acquisition, the same for all runs that share it; None for a mixer
    or a start that has none.

    Of the evaluation everything stays: the metrics of the acquisition are those of the run.
    """
    if (
        config.start_from is not None
        or config.model.mixer not in MIXERS
        or not MIXERS[config.model.mixer][0].routed
    ):
        return None
    tree = config.model_dump(mode="json")
    kept = {name: tree["controller"][name] for name in DECIDING}
    tree["name"], tree["controller"] = "acquisition", {**ConsolidationRules().model_dump(mode="json"), **kept}
    tree["training"]["losses"] = {
        name: value for name, value in tree["training"]["losses"].items() if name not in LATER_LOSSES
    }
    tree["model"]["options"] = {
        name: value for name, value in tree["model"]["options"].items() if name not in LATER_OPTIONS
    }
    if (longest := config.controller.acquire_steps) is not None:
        tree["task"] = config.task.before(longest).model_dump(mode="json")
    return RunConfig.parse(tree)
