"""Fixtures of all tests: nothing random is left to chance, and nothing is shared between tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from typechecker import begin_test

# The same examples every time, and no deadline: how long an example takes depends on the machine.
settings.register_profile("torchcram", derandomize=True, deadline=None, max_examples=30)
settings.load_profile("torchcram")
# Tiny tensors: a second thread only waits for the first, and on a busy machine it waits long.
torch.set_num_threads(1)


# Files of few but long tests, which start processes: they come first, so that no worker is left with one at
# the end.
LONG = (
    "test_ray_executor.py",
    "test_resume.py",
    "test_distributed.py",
    "test_export.py",
    "test_thresholds.py",
    "test_examples.py",
    "test_auto_classes.py",
    "test_scikit_learn.py",
    "test_life.py",
    "test_wheel.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long tests first."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def _shapes_are_checked() -> None:
    begin_test()


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    """Seed torch's own generator, for parameters; restore the default dtype and the determinism switch
    afterwards."""
    dtype, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    # The first call imports for two seconds.
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def float64() -> None:
    """Make float64 the default, so that a tolerance of 1e-9 means something (``_deterministic`` restores
    it)."""
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    """Return a function that makes a generator from a seed."""
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Return a function that reads all files of a folder: to show that nothing was touched."""
    return lambda folder: {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
