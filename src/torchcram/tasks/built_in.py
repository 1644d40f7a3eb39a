"""The built-in tasks: one table, name -> configuration and task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchcram.tasks.base import Task, TaskConfig
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.tasks.transfer import Transfer, TransferConfig

TASKS: dict[str, tuple[type[TaskConfig], Callable[[Any], Task]]] = {
    "srcd": (SRCDConfig, SRCD),
    "transfer": (TransferConfig, Transfer),
}
# The configurations of the table, as types know them.
BuiltInTaskConfig = SRCDConfig | TransferConfig
DEFAULT_TASK = SRCDConfig()


def built_in_task(config: TaskConfig) -> Task:
    """Return the built-in task of a configuration."""
    return TASKS[config.kind][1](config)
