"""Running a model from the first replaced layer on is running it with hooks."""

import pytest
import torch

from tiny_models import FAMILIES, random_windows, tiny_model
from torchcram.pretrained.analysis.layerwise import Layerwise, token_losses
from torchcram.pretrained.analysis.prefixes import Prefixes, dropping
from torchcram.pretrained.capture import capture
from torchcram.pretrained.sites import find_sites


@pytest.mark.parametrize("family", FAMILIES)
def test_running_from_a_layer_on_is_running_the_model_with_hooks(family):
    model = tiny_model(family)
    sites, ids = find_sites(model), random_windows(1, seed=0)[0]
    last = len(sites) - 1
    prefixes = Prefixes(Layerwise(model, sites), sites, ids)
    with torch.no_grad(), capture([sites[last]], replace=lambda number, x, output: torch.zeros_like(output)):
        expected = token_losses(model(input_ids=ids[None], use_cache=False).logits[0], ids)
    with torch.no_grad():
        torch.testing.assert_close(prefixes.losses({last: dropping}), expected, rtol=1e-4, atol=1e-4)
