"""One finished analysis of a tiny model, shared by the tests that look at its results."""

from pathlib import Path

import pytest
import torch

from tiny_models import CharTokenizer, documents, tiny_model
from torchcram.pretrained.analysis.analyze import Analysis, analyze
from torchcram.pretrained.analysis.settings import AnalysisConfig

SMALL = AnalysisConfig(
    tokens=1600,
    context=32,
    rank_tokens=64,
    refit_tokens=320,
    harm_tokens=160,
    judge_tokens=96,
    route_tokens=64,
    replace=(1, 2),
    skip_rates=(0.25, 0.75),
    state_directions=4,
    local_reach=1,
    mlp_width=8,
)


@pytest.fixture(scope="session")
def small() -> AnalysisConfig:
    """Settings for tiny models."""
    return SMALL


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """An analysis of a tiny GPT-2, in a folder."""
    torch.set_num_threads(1)
    return analyze(
        tiny_model("gpt2"),
        CharTokenizer(),
        documents(),
        settings=SMALL,
        out=Path(tmp_path_factory.mktemp("analysis")) / "gpt2",
        name="tiny",
    )
