"""Fixtures of the tests that train."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_runs import lasting, tiny_config
from torchcram.training.run_config import RunConfig


@pytest.fixture(autouse=True)
def _on_cpu_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bit for bit is promised for the CPU; the machines of the tests may have something else."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> Callable[..., RunConfig]:
    return tiny_config


@pytest.fixture
def lasting_summary() -> Callable[[Path], dict[str, Any]]:
    return lasting
