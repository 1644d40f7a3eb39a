"""What is judged is the mean change of the loss over all predictions."""

import pytest

from tiny_models import random_windows
from torchcram.pretrained.analysis.judged import judge
from torchcram.pretrained.analysis.prefixes import dropping


def test_judging_counts_predictions_and_documents(llama):
    _, sites, layerwise, probes = llama
    variants = {"same": {0: lambda x, output: output}, "drop": {0: dropping, 2: dropping}}
    judged = judge(layerwise, sites, random_windows(3, seed=6), variants, documents=[4, 4, 7])
    assert judged.predictions == (23, 23, 23)
    assert judged.change("same") == pytest.approx(0.0, abs=1e-5)
    assert judged.change("drop") == pytest.approx(sum(judged.changes["drop"]) / 69)
