"""Every script under ``experiments/`` and ``examples/`` can be loaded: what it imports from the package
exists. None starts its work by being loaded, and what is to be started has a ``main``."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for folder in ("experiments", "examples") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_can_be_loaded(script, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    names = runpy.run_path(str(script), run_name="loaded")
    assert callable(names.get("main")) or "__main__" not in script.read_text()
