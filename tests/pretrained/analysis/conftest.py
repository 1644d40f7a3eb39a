"""What the tests of an analysis share: a finished one of a tiny model, and a model with plain probes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_models import CharTokenizer, documents, random_windows, tiny_model
from torchcram.pretrained.analysis.analyze import Analysis, analyze
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.analysis.moments import covariances, no_moments
from torchcram.pretrained.analysis.ridge import LinearProbe, chosen_on
from torchcram.pretrained.analysis.settings import AnalysisConfig
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import AttentionSite, find_sites

# Of the hidden states of tiny models.
WIDTH = 32
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


@pytest.fixture(scope="module")
def llama() -> tuple[Any, list[AttentionSite], Layerwise, list[LinearProbe]]:
    """A model, its sites, itself layer by layer, and plain probes."""
    torch.manual_seed(0)
    model = tiny_model("llama", num_hidden_layers=3)
    sites = find_sites(model)
    parts = [[no_moments(WIDTH, WIDTH) for _ in sites] for _ in range(2)]
    for place, ids in enumerate(random_windows(40, seed=1)):

        def add(number, x, output, place=place):
            parts[place % 4 == 3][number].add(x, output)
            return output

        with torch.no_grad(), capture(sites, replace=add):
            model(input_ids=ids[None], use_cache=False)
    probes = [
        chosen_on(covariances(held), covariances(fit)).float() for fit, held in zip(*parts, strict=True)
    ]
    return model, sites, Layerwise(model, sites), probes
