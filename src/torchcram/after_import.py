"""Do something when another package's module has been imported, whether that was before or comes after: so
``import torchcram`` can enter names into the tables of Transformers without importing it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]


def after_import(name: str, action: Action) -> None:
    """Call ``action`` with the module of this name: now if it is loaded, else right after it has been."""
    if name in sys.modules:
        action(sys.modules[name])
        return
    finder = next((one for one in sys.meta_path if isinstance(one, _Waiting)), None)
    if finder is None:
        finder = _Waiting()
        sys.meta_path.insert(0, finder)
    finder.actions.setdefault(name, []).append(action)


class _Waiting(MetaPathFinder):
    """Finds modules as the others do, and acts once they are loaded."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the specification that the other finders have for a module that is waited for."""
        if fullname not in self.actions:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((one for one in specs if one is not None), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_act(module: ModuleType) -> None:
            load(module)
            for action in self.actions.pop(fullname, []):
                action(module)

        # Of this one specification alone: every search makes a new loader.
        setattr(spec.loader, "exec_module", load_and_act)  # noqa: B010 (the type forbids the assignment)
        return spec
