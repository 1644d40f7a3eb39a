"""The questions about whole layers and models: the recurrent layer, a training step, decoding, and
``generate``.

Routes are forced by seeded draws, so that a question's read rate is what it says: untrained routers would
decide something else. Everything else is what users run: the blocks, the caches and the language model of the
library.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcram.bench.measurement import Measurement
from torchcram.bench.setting import Setting
from torchcram.bench.timing import seconds, take_turns
from torchcram.memory.block import CRAMBlock
from torchcram.memory.episodic import EpisodicMemory
from torchcram.memory.router import Router
from torchcram.memory.working import TimeAwareSSM
from torchcram.models.sequence import SequenceModel
from torchcram.strict import optional
from torchcram.types import Batch, Head, KeyValueState, Learning, MemoryState, Route, RoutingControl, Step

FLOOR = 0.016
# Of the two language models.
WIDTH, DEPTH, HEADS, VOCABULARY = 512, 8, 8, 32_000


class DrawnRouter(Router):
    """A router that draws lots: a share of the tokens reads, the others need nothing.

    It takes the place of a block's own router.

    Args:
        rate: share of the tokens that read.
        generator: of the draws, on the CPU.
    """

    def __init__(self, rate: float, generator: torch.Generator):
        super().__init__()
        self.rate, self.generator = rate, generator

    def need(
        self, hidden_states: Float[Tensor, "batch time d_model"], step: Step
    ) -> Float[Tensor, "batch time"]:
        """Return one for the tokens that are drawn, zero for the others."""
        del step
        return (torch.rand(hidden_states.shape[:2], generator=self.generator) < self.rate).to(hidden_states)

    def choose(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        need: Float[Tensor, "batch time"],
        familiarity: Float[Tensor, "batch time"],
        step: Step,
    ) -> tuple[Float[Tensor, "batch time 3"], Int[Tensor, "batch time"]]:
        """Let the drawn ones read."""
        del hidden_states, familiarity, step
        route = torch.where(need > 0.5, int(Route.EPISODIC), int(Route.WORKING))
        return torch.stack([1 - need, torch.zeros_like(need), need], -1), route

    def credit(
        self, probabilities: Float[Tensor, "batch time 3"]
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
        """Return what the gradients of retrieval and answer move: nothing that learns."""
        return probabilities[..., Route.EPISODIC], probabilities[..., Route.SEMANTIC]


def force(block: CRAMBlock, rate: float, generator: torch.Generator) -> None:
    """Let lots decide what a block reads."""
    block.router = cast(Any, DrawnRouter(rate, generator))


def recurrent_layer(setting: Setting, length: int) -> Measurement:
    """Our working memory with its gradients against the Mamba-2 layer of Transformers (its PyTorch path):
    batch 8, width 256, 256 numbers of state each.

    The limit is the layer's matrix products alone, with their gradients.
    """
    inputs, gap = setting.randn(8, length, 256).requires_grad_(), torch.ones(8, length, device=setting.device)
    above = setting.randn(8, length, 256)
    ours, theirs = TimeAwareSSM(256, state_size=128).to(setting.device), _mamba2(setting)
    start = ours.init_state(8)
    layers = ((ours, lambda: ours(inputs, gap, start)[0]), (theirs, lambda: theirs(inputs)))
    both = [partial(_layer, layer, function, inputs, above) for layer, function in layers]
    timing = take_turns(*both, rounds=setting.rounds)
    peer = "Mamba2Mixer of Transformers, equal width and state"
    limit = timing.peer_ms / (
        1e3
        * statistics.median(
            sum(map(seconds, _products(setting, ours, 8 * length))) for _ in range(setting.rounds)
        )
    )
    return Measurement(
        question="scan",
        device=setting.name,
        length=length,
        read_rate=None,
        peer=peer,
        timing=timing,
        limit=limit,
    )


def _products(setting: Setting, layer: nn.Module, rows: int) -> list[Callable[[], object]]:
    """Return the matrix products of a layer, each with its two gradients, for so many rows."""
    linear = [part for part in layer.modules() if isinstance(part, nn.Linear)]
    sizes = [
        (setting.randn(rows, part.in_features), setting.randn(rows, part.out_features), part.weight.detach())
        for part in linear
    ]
    return [partial(_product, *size) for size in sizes]


def _product(inputs: Tensor, above: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return inputs @ weight.T, above @ weight, above.T @ inputs


def _layer(layer: nn.Module, function: Callable[[], Tensor], inputs: Tensor, above: Tensor) -> None:
    torch.autograd.backward(function(), above)
    inputs.grad = None
    layer.zero_grad()


def _mamba2(setting: Setting) -> nn.Module:
    optional("transformers", extra="hf")
    from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=256, expand=1, num_heads=4, head_dim=64, state_size=1, n_groups=1, num_hidden_layers=1
    )
    return Mamba2Mixer(config, layer_idx=0).to(setting.device)


def train_step(setting: Setting) -> Iterator[Measurement]:
    """A training step at the floor of SRCD against the same step with every read: two layers of width 64,
    4,096 tokens.
    """
    for length in setting.lengths(2048, 8192):
        model = SequenceModel([Head(name="next", kind="regression", size=36)], input_size=36).to(
            setting.device
        )
        for block in model.blocks:
            force(cast(CRAMBlock, block), FLOOR, setting.generator)
        batch = _batch(setting, model, length)
        controls = (
            RoutingControl(learning=Learning(exploration=0.02, consolidate=True)),
            RoutingControl(reads="all", learning=Learning()),
        )
        noise = torch.rand(*batch.gap.shape, len(model.blocks), 4, generator=setting.generator).to(
            setting.device
        )
        # The routers draw lots: exploration stays at its least rate, as in a router that is sure.
        both = [
            partial(_step, model, batch, control, noise if control.reads == "routed" else None)
            for control in controls
        ]
        timing = take_turns(*both, rounds=setting.rounds)
        for block in model.blocks:
            force(cast(CRAMBlock, block), 0.0, setting.generator)
        # Amdahl: the same step without a read.
        limit = take_turns(
            partial(_step, model, batch, RoutingControl(learning=Learning()), noise),
            both[1],
            rounds=setting.rounds,
        ).ratio
        peer = "the same step with every read (acquisition)"
        yield Measurement(
            question="train-step",
            device=setting.name,
            length=length,
            read_rate=FLOOR,
            peer=peer,
            timing=timing,
            limit=limit,
        )


def _batch(setting: Setting, model: SequenceModel, length: int) -> Batch:
    size = max(1, 4096 // length)
    inputs = setting.randn(size, length, int(model.input_size or 0))
    return Batch(inputs=inputs, gap=torch.ones(size, length, device=setting.device), targets={"next": inputs})


def _step(model: SequenceModel, batch: Batch, control: RoutingControl, noise: Tensor | None) -> None:
    output = model(batch, control=control, noise=noise)
    aside = [value for block in output.blocks for value in block.losses.values()]
    total = torch.stack([*model.task_losses(output.outputs, batch).values(), *aside]).sum()
    total.backward()
    model.zero_grad()
    for block, said in zip(model.blocks, output.blocks, strict=True):
        block.after_step(said)


@torch.no_grad()
def decode(setting: Setting) -> Iterator[Measurement]:
    """One token after the other for each of eight sequences, over a memory of 8,192 entries, some of them
    reading, against all of them reading.

    First the attention alone, then whole blocks: working memory, router, writing, feed-forward network. Bytes
    fall with the reads: a token that does not read touches no entry, one that does touches them all.
    """
    for length in setting.lengths(8192):
        memory, state = _filled(setting, length)
        draws = torch.rand(64, 8, 1, generator=setting.generator)
        calls = [
            partial(_tokens, memory, state, (draws < rate).to(setting.device), setting.randn(8, 1, 512))
            for rate in (0.05, 1.0)
        ]
        timing = take_turns(*calls, rounds=setting.rounds)
        peer = "the same attention with every read"
        yield Measurement(
            question="decode",
            device=setting.name,
            length=length,
            read_rate=0.05,
            peer=peer,
            timing=timing,
            limit=20.0,
        )
        yield _decode_blocks(setting, length)


def _decode_blocks(setting: Setting, length: int) -> Measurement:
    """Whole blocks, four of them; the limit is what they take without a read."""
    stacks = {
        rate: [CRAMBlock(512, heads=8).to(setting.device).eval() for _ in range(4)]
        for rate in (0.05, 1.0, 0.0)
    }
    for rate, blocks in stacks.items():
        for block in blocks:
            force(block, rate, setting.generator)
    states = [replace(block.init_state(8), episodic=_filled(setting, length)[1]) for block in stacks[0.05]]
    calls = {
        rate: partial(_through, blocks, states, setting.randn(16, 8, 1, 512))
        for rate, blocks in stacks.items()
    }
    timing = take_turns(calls[0.05], calls[1.0], rounds=setting.rounds)
    limit = timing.peer_ms / (1e3 * seconds(calls[0.0]))
    peer = "the same four blocks with every read"
    return Measurement(
        question="decode",
        device=setting.name,
        length=length,
        read_rate=0.05,
        peer=peer,
        timing=timing,
        limit=limit,
    )


def _through(blocks: list[CRAMBlock], states: list[MemoryState], tokens: Tensor) -> None:
    """One token after the other through all blocks; what they write goes behind the entries, and is
    overwritten the next time.
    """
    gap = torch.ones(8, 1, device=tokens.device)
    for token in tokens:
        for block, state in zip(blocks, states, strict=True):
            token = block(token, Step(gap=gap), state).hidden_states


def _filled(setting: Setting, length: int) -> tuple[EpisodicMemory, KeyValueState]:
    """Eight sequences' buffers of eight heads of 64, full but for the token to come."""
    memory = EpisodicMemory(512, heads=8).to(setting.device)
    shape, count = (8, 8, length + 1, 64), torch.full((8,), length, device=setting.device)
    return memory, KeyValueState(
        keys=setting.randn(*shape), values=setting.randn(*shape), time=count.float(), entries=count
    )


def _tokens(memory: EpisodicMemory, state: KeyValueState, draws: Tensor, token: Tensor) -> None:
    """One token after the other, each with its own draw of who reads; nothing is written, so that the
    memory stays as long as it is.
    """
    for selected in draws:
        memory.read(token, state.time[:, None], state, selected, before=state)


@torch.no_grad()
def generate(setting: Setting) -> Iterator[Measurement]:
    """``generate`` of 500 tokens after 2,048, width 512, 8 layers, vocabulary 32,000, against a dense
    Llama of equal width and depth.
    """
    for length in setting.lengths(2048):
        for batch in (1, 8):
            prompt = torch.randint(VOCABULARY, (batch, length), generator=setting.generator).to(
                setting.device
            )
            new = max(2, 500 * length // 2048)
            ours, llama, free = _ours(setting, 0.1), _llama(setting), _ours(setting, 0.0)
            for model in (ours, llama, free):
                _generated(model, prompt[:, :32], 2)
            both = [partial(_generated, model, prompt, new) for model in (ours, llama)]
            timing = take_turns(*both, rounds=max(2, min(setting.rounds, 3)), warm_up=0)
            # Amdahl: the same model without a read.
            limit = timing.peer_ms / (1e3 * seconds(partial(_generated, free, prompt, new)))
            peer = f"Llama of Transformers, batch {batch}"
            yield Measurement(
                question="generate",
                device=setting.name,
                length=length,
                read_rate=0.1,
                peer=peer,
                timing=timing,
                limit=limit,
            )


def _generated(model: Any, prompt: Tensor, new: int) -> None:
    model.generate(
        prompt,
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
        attention_mask=torch.ones_like(prompt),
    )


def _ours(setting: Setting, rate: float) -> nn.Module:
    optional("transformers", extra="hf")
    from torchcram.models.configuration_cram import CRAMConfig
    from torchcram.models.modeling_cram import CRAMForCausalLM

    config = CRAMConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=DEPTH, mixer_options={"heads": HEADS}
    )
    model = CRAMForCausalLM(config).eval().to(setting.device)
    for block in model.model.mixers:
        force(cast(CRAMBlock, block), rate, setting.generator)
    return model


def _llama(setting: Setting) -> nn.Module:
    transformers = optional("transformers", extra="hf")
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
    }
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, **sizes, max_position_embeddings=4096, bos_token_id=None, eos_token_id=None
    )
    return transformers.LlamaForCausalLM(config).eval().to(setting.device)
