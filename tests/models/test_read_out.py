"""A pooled head reads real steps alone, in any order of the early ones, and whatever is padded."""

import torch

from torchcram.models.encoder import EncoderModel
from torchcram.models.read_out import POOLED, last_step, pooled, width_read
from torchcram.models.sequence import SequenceModel
from torchcram.types import Batch, Head

X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)


def test_last_mean_and_greatest_are_those_of_the_real_steps():
    seen = pooled(X, MASK, last_step(X, MASK))
    for row, steps in ((0, 5), (1, 2), (2, 1)):
        real = X[row, :steps]
        torch.testing.assert_close(seen[row], torch.cat([real[-1], real.mean(0), real.amax(0)]))
    torch.testing.assert_close(pooled(X, None, X[:, -1])[0], seen[0])


def test_padding_changes_nothing():
    wild = torch.where(MASK[..., None], X, 1e6)
    torch.testing.assert_close(
        pooled(wild, MASK, last_step(wild, MASK))[:2], pooled(X, MASK, last_step(X, MASK))[:2]
    )


def test_heads_say_which_of_them_pool():
    heads = (
        Head(name="whole", kind="regression", size=2, per="sequence", pooled=True),
        Head(name="end", kind="regression", size=2, per="sequence"),
        Head(name="each", kind="regression", size=1),
    )
    assert [width_read(head, 8) for head in heads] == [POOLED * 8, 8, 8]
    batch = Batch(inputs=torch.randn(2, 5, 4), gap=torch.ones(2, 5), mask=MASK[:2])
    for model in (
        SequenceModel(heads, input_size=4, d_model=8, mixer="ssm", layers=1),
        EncoderModel(heads, input_size=4, flags=True, d_model=8, encoder="grud"),
        EncoderModel(heads, input_size=4, flags=True, d_model=8, encoder="mtand"),
    ):
        outputs = model(batch).outputs
        assert {name: tuple(value.shape) for name, value in outputs.items()} == {
            "whole": (2, 2),
            "end": (2, 2),
            "each": (2, 5, 1),
        }
