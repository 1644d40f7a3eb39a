"""Makes Transformers know the model type ``"cram"``, without importing it or the model.

Transformers has tables of names, from a model type to classes in ``transformers.models.<model type>``, and
looks a class up there when it is first asked for. Everything that asks the tables then finds ours: the Auto
classes, ``pipeline``, ``Trainer``'s label smoothing, ``lm_eval``. ``torchcram`` enters them after the tables
are imported (:mod:`torchcram.after_import`).
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

MODEL_TYPE = "cram"
# Module of Transformers -> its tables -> our class.
TABLES = {
    "transformers.models.auto.configuration_auto": {"CONFIG_MAPPING_NAMES": "CRAMConfig"},
    "transformers.models.auto.modeling_auto": {
        "MODEL_MAPPING_NAMES": "CRAMModel",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "CRAMForCausalLM",
    },
}


def enter(module: ModuleType) -> None:
    """Enter the model type in the tables of a module that has been loaded."""
    for table, name in TABLES[module.__name__].items():
        getattr(module, table, {}).setdefault(MODEL_TYPE, name)
    place = f"transformers.models.{MODEL_TYPE}"
    sys.modules.setdefault(place, ModelModule(place))


class ModelModule(ModuleType):
    """Where Transformers looks our classes up: imports them when it does."""

    def __getattr__(self, name: str) -> Any:
        """Return one of our classes."""
        if name not in {name for tables in TABLES.values() for name in tables.values()}:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module("torchcram.models.modeling_cram"), name)
