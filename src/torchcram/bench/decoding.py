"""How fast one token follows another, for attention alone and for whole blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from torchcram.bench.drawn_router import force
from torchcram.bench.measurement import Measurement
from torchcram.bench.setting import Setting
from torchcram.bench.timing import seconds, take_turns
from torchcram.memory.block import CRAMBlock
from torchcram.memory.episodic import EpisodicMemory
from torchcram.types import KeyValueState, MemoryState, Step


@torch.no_grad()
def decode(setting: Setting) -> Iterator[Measurement]:
    """One token after the other for each of eight sequences, over a memory of 8,192 entries, some of them
    reading, against all of them reading.

    First the attention alone, then whole blocks: working memory, router, writing, feed-forward network. Bytes
    fall with the reads: a token that does not read touches no entry, one that does touches them all.
    """
    for length in setting.lengths("decode"):
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
