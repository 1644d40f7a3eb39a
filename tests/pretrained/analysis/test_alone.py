"""Each block alone is measured by really running the model without it."""

import pytest
import torch

from tiny_models import random_windows
from torchcram.pretrained.analysis.alone import Alone, best_sets, divergence, each_alone, ranking
from torchcram.pretrained.analysis.prefixes import Prefixes, replacing


def test_each_alone_measures_one_block_at_a_time(llama):
    model, sites, layerwise, probes = llama
    text = random_windows(2, seed=5)
    alone = each_alone(layerwise, sites, text, [replacing(probe) for probe in probes])
    change = 0.0
    for ids in text:
        prefixes = Prefixes(layerwise, sites, ids)
        with torch.no_grad():
            change += float((prefixes.losses({1: replacing(probes[1])}) - prefixes.losses({})).sum())
    assert alone[1].loss == pytest.approx(change / 46, abs=1e-6)
    assert all(one.divergence > 0 for one in alone)
    nothing = each_alone(layerwise, sites, text, [lambda x, output: output] * 3)
    assert [abs(one.divergence) < 1e-5 for one in nothing] == [True] * 3


def test_the_divergence_is_that_of_the_distributions():
    base, new = torch.randn(300, 7), torch.randn(300, 7)
    p, q = base.double().softmax(-1), new.double().softmax(-1)
    assert divergence(base, new) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)


def test_the_best_sets_are_the_blocks_that_move_the_predictions_least():
    blocks = [
        Alone(loss=-1.0, divergence=0.3),
        Alone(loss=0.0, divergence=0.1),
        Alone(loss=1.0, divergence=0.2),
    ]
    assert ranking(blocks) == [1, 2, 0]
    assert best_sets(blocks, (1, 3, 4)) == {1: [1], 3: [1, 2, 0]}
