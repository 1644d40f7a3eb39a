"""A model whose weights are elsewhere, or on several devices, computes what it computes in one place."""

import copy
from collections.abc import Callable
from pathlib import Path

import accelerate
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lived import live
from tiny_language_models import PAD, VOCABULARY, WIDTH, tiny_config, tokens
from torchcram.baselines.static import StaticBlock
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.models.offloading import at_hand
from torchcram.types import BlockOutput, MemoryState, Route, RoutingDecision, Step

CPU = torch.device("cpu")
GREEDY = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": PAD}


@pytest.fixture(scope="module", params=["cram", "seqboat", "static_hybrid"])
def model(request: pytest.FixtureRequest) -> CRAMForCausalLM:
    torch.manual_seed(0)
    return live(CRAMForCausalLM(tiny_config(request.param))).eval().requires_grad_(False)


def in_memory(model: CRAMForCausalLM, folder: Path) -> CRAMForCausalLM:
    return accelerate.cpu_offload(copy.deepcopy(model), execution_device=CPU)


def on_disk(model: CRAMForCausalLM, folder: Path) -> CRAMForCausalLM:
    moved = copy.deepcopy(model)
    accelerate.disk_offload(moved, str(folder / "offloaded"), execution_device=CPU)
    return moved


def loaded(model: CRAMForCausalLM, folder: Path, **how) -> CRAMForCausalLM:
    model.save_pretrained(folder / "saved")
    again = AutoModelForCausalLM.from_pretrained(folder / "saved", offload_folder=folder / "more", **how)
    for ours, theirs in zip(again.model.mixers, model.model.mixers, strict=True):
        if hasattr(theirs, "semantic"):
            # Not saved: tests alone change them.
            ours.semantic.radius, ours.semantic.sharpness = theirs.semantic.radius, theirs.semantic.sharpness
    return again


def by_device_map(model: CRAMForCausalLM, folder: Path) -> CRAMForCausalLM:
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    return loaded(model, folder, device_map=places | {"model.norm": "cpu", "lm_head": "cpu"})


def by_memory(model: CRAMForCausalLM, folder: Path) -> CRAMForCausalLM:
    size = 4 * sum(weight.numel() for weight in model.parameters())
    return loaded(model, folder, device_map="auto", max_memory={"cpu": int(0.7 * size)})


@pytest.mark.filterwarnings("ignore:Couldn't connect:UserWarning")
@pytest.mark.parametrize("move", [in_memory, on_disk, by_device_map, by_memory])
def test_weights_may_be_elsewhere(model, move: Callable, tmp_path):
    moved = move(model, tmp_path)

    def away() -> list[str]:
        return [name for name, weight in moved.named_parameters() if weight.device.type == "meta"]

    before = away()
    assert any("layers.1" in name for name in before)
    assert torch.equal(moved(tokens()).logits, model(tokens()).logits)
    assert torch.equal(moved.generate(tokens(), **GREEDY), model.generate(tokens(), **GREEDY))
    assert away() == before


def test_weights_are_taken_back_after_an_error(model):
    layer = accelerate.cpu_offload(copy.deepcopy(model), execution_device=CPU).model.layers[0].mixer
    places = [weight.device.type for weight in layer.parameters()]
    with pytest.raises(KeyError), at_hand(layer):
        raise KeyError(check := [weight.device.type for weight in layer.parameters()])
    assert set(check) == {"cpu"}
    assert [weight.device.type for weight in layer.parameters()] == places
    assert "meta" in places


class Sum(StaticBlock):
    """A mixer that computes on any device: it adds tokens up, and every step reads."""

    routed = True

    def __init__(self):
        nn.Module.__init__(self)
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def init_state(self, batch_size: int) -> MemoryState:
        return MemoryState(working=self.scale.new_zeros(batch_size, WIDTH))

    def forward(self, hidden_states: Tensor, step: Step, state: MemoryState | None = None) -> BlockOutput:
        gap = step.gap
        state = self.init_state(len(gap)) if state is None else state
        sums = state.working[:, None] + (self.scale * (hidden_states + step.token) * gap[..., None]).cumsum(1)
        read = torch.full_like(gap, int(Route.EPISODIC), dtype=torch.long)
        decision = RoutingDecision(
            route=read if step.mask is None else read * step.mask,
            probabilities=gap[..., None].expand(-1, -1, 3),
            familiarity=gap,
            explored=read > 9,
            weight=gap,
            asked=read > 9,
        )
        losses = {"price": sums.mean()}
        after = MemoryState(working=sums[:, -1])
        return BlockOutput(hidden_states=sums, state=after, decision=decision, losses=losses)


def test_layers_may_be_on_several_devices():
    """The last ones on a device without memory: an operation on tensors of two devices would fail."""
    model = CRAMForCausalLM(tiny_config()).eval().requires_grad_(False)
    for layer in model.model.layers:
        layer.mixer = Sum()
    for part in (model.model.layers[1], model.model.norm, model.lm_head):
        add_hook_to_module(part.to("meta"), AlignDevicesHook(execution_device="meta"))
    ids, mask = tokens(), torch.tensor([[1] * 9, [0] * 4 + [1] * 5])
    how = {"attention_mask": mask, "output_routing": True, "output_hidden_states": True}
    output = model(ids, **how, use_cache=True)
    assert output.logits.device.type == "meta"
    assert [layer.state.spent.device.type for layer in output.past_key_values.layers] == ["cpu", "meta"]
    assert [state.device.type for state in output.hidden_states] == ["cpu", "cpu", "meta"]
    assert output.read_rates.shape == (2,)
    more = model(ids[:, :1], past_key_values=output.past_key_values)
    assert more.logits.shape == (2, 1, VOCABULARY)
    assert model.train()(ids, labels=ids.to("meta"), num_items_in_batch=torch.tensor(16)).loss.shape == ()
