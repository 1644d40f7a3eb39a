"""The static hybrid: recurrence everywhere, attention in every k-th layer, which is an ordinary
Transformer's."""

import pytest
import torch

from lived import live, run
from torchcram.baselines.ssm import SSMBlock
from torchcram.baselines.static_hybrid import StaticHybridBlock
from torchcram.baselines.transformer import TransformerBlock
from torchcram.models.sequence import SequenceModel
from torchcram.types import Batch, Head, RoutingControl

WIDTH, BATCH, TIME = 32, 2, 7
ROUTED = RoutingControl()

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("every", "attending"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [2, 5]), (4, [3]), (7, [])]
)
def test_every_kth_layer_of_a_model_attends_to_everything(every, attending):
    heads = (Head(name="answer", kind="classification", size=2),)
    model = SequenceModel(
        heads,
        input_size=3,
        d_model=WIDTH,
        layers=6,
        mixer="static_hybrid",
        options={"attention_every": every},
    )
    blocks = model(
        Batch(inputs=torch.randn(BATCH, TIME, 3), gap=torch.rand(BATCH, TIME)), control=ROUTED
    ).blocks
    assert [layer for layer, block in enumerate(blocks) if block.decision.read.all()] == attending
    assert [layer for layer, block in enumerate(blocks) if block.decision.read.any()] == attending
    assert [layer for layer, block in enumerate(blocks) if block.state.episodic is not None] == attending
    assert not model.routed


def outputs(hybrid: StaticHybridBlock, other: torch.nn.Module) -> list[torch.Tensor]:
    other.load_state_dict(
        {name: value for name, value in hybrid.state_dict().items() if name in other.state_dict()}
    )
    x, gap = torch.randn(BATCH, TIME, WIDTH), torch.rand(BATCH, TIME)
    return [run(block, x, gap, control=ROUTED).hidden_states for block in (hybrid, other)]


def test_without_its_recurrence_an_attention_layer_is_a_transformers():
    hybrid = live(StaticHybridBlock(WIDTH, layer=1, window=3))
    with torch.no_grad():
        hybrid.working.out.weight.zero_()
    torch.testing.assert_close(*outputs(hybrid, TransformerBlock(WIDTH, window=3)), rtol=1e-12, atol=1e-12)


def test_a_layer_without_attention_is_the_recurrence_alone():
    torch.testing.assert_close(
        *outputs(live(StaticHybridBlock(WIDTH, layer=0)), SSMBlock(WIDTH)), rtol=1e-12, atol=1e-12
    )
