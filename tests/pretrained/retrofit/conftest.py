"""What the tests of the retrofit share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def ids():
    """Two sequences of 40 tokens."""
    return torch.randint(3, 60, (2, 40), generator=torch.Generator().manual_seed(0))
