"""A finished run that never happened, in a folder of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planted_run import SUMMARY, rewrite_metrics, write_planted_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run with every file."""
    return write_planted_run(tmp_path / "run")


@pytest.fixture
def summary() -> dict[str, Any]:
    return dict(SUMMARY)


@pytest.fixture
def write_run() -> Callable[..., Path]:
    return write_planted_run


@pytest.fixture
def rewrite() -> Callable[..., None]:
    return rewrite_metrics
