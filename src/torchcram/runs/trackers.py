"""The figures of a run in the trackers that people use: TensorBoard, Weights & Biases, MLflow, trackio and
all others that accelerate knows, through accelerate.

Nothing is kept there that ``metrics.jsonl`` does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from torchcram.runs.run_dir import RunDir
from torchcram.strict import MissingExtraError, StrictConfig, require_choice

# The folder of a run that trackers without a place of their own write to.
TRACKERS = "trackers"


def require_trackers(names: Sequence[str]) -> None:
    """Say what is wrong with the names of trackers.

    Raises:
        ValueError: for an unknown one, with the nearest.
        MissingExtraError: for one that is not installed, with the package to install.
    """
    built_in = {str(name) for name in LoggerType.list()}
    installed = {str(name) for name in get_available_trackers()}
    for name in names:
        require_choice("tracker", name, sorted(LOGGER_TYPE_TO_CLASS))
        if name in built_in and name not in installed:
            raise MissingExtraError(f"the tracker {name!r} is not installed: pip install {name}")


@contextmanager
def tracked(accelerator: Accelerator, run: RunDir, config: StrictConfig, *, step: int) -> Iterator[None]:
    """Start the accelerator's trackers for a run that stands at a step, and end them, however it ends.

    The project is called like the configuration, and the run like its folder. TensorBoard forgets what an
    interrupted process wrote from that step on; the others begin a run of the same name.
    """
    project, name = str(getattr(config, "name", "torchcram")), run.path.resolve().name
    accelerator.init_trackers(
        project,
        config=_words(config.model_dump(mode="json")),
        init_kwargs={
            "tensorboard": {"purge_step": step},
            "wandb": {"name": name},
            "trackio": {"name": name},
            "mlflow": {"run_name": name},
        },
    )
    try:
        yield
    finally:
        # Not end_training: it also leaves the group of processes, which the caller may still need.
        for tracker in accelerator.trackers:
            tracker.finish()


def track(accelerator: Accelerator, record: Mapping[str, Any]) -> None:
    """Tell the trackers the numbers of a line of the metrics, named ``kind/field`` and, below, ``/part``."""
    kind, step = record["kind"], record["step"]
    numbers = {
        f"{kind}/{path}": value
        for path, value in flat(record, "/").items()
        if isinstance(value, int | float) and math.isfinite(value) and path not in ("step", "kind")
    }
    accelerator.log(numbers, step=step)


def flat(tree: Any, separator: str) -> dict[str, Any]:
    """Return the leaves of nested mappings and lists by their paths."""
    if not isinstance(tree, Mapping | list | tuple):
        return {"": tree}
    parts = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {
        f"{name}{separator}{path}" if path else str(name): value
        for name, part in parts
        for path, value in flat(part, separator).items()
    }


def _words(tree: Mapping[str, Any]) -> dict[str, int | float | str]:
    """The settings as trackers take them."""
    return {
        path: value if isinstance(value, int | float | str) else str(value)
        for path, value in flat(tree, ".").items()
    }
