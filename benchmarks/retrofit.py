"""Decoding and prefill of a retrofitted model beside the untouched one, by turns, at a given share of reads.

The model has the shape of SmolLM2-135M and random weights: speed does not depend on what is known. Which
tokens read is drawn, after the router has been paid for. Caches are filled with random entries, not by a
prefill.

Times are processor seconds of one thread: others may use the machine at the same time.

python benchmarks/retrofit.py [--length 8192] [--batch 8] [--layers 30] [--unread 12] [--reads 0.1]
    [--kept 64]

It adds to retrofit_cpu.json here, one measurement after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from torchcram.bench.timing import Timing, take_turns
from torchcram.pretrained.judging.speed import cache_bytes, decode, untouched
from torchcram.pretrained.retrofit.alignment import Alignment
from torchcram.pretrained.retrofit.cache import cache_layer
from torchcram.pretrained.retrofit.install import (
    attention_blocks,
    install,
    memories,
    retrofit_of,
)
from torchcram.pretrained.retrofit.settings import KEPT, RetrofitSettings

ROUNDS = 3
HERE = Path(__file__).parent
SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def make_model(layers: int, unread: int, *, kind: str = "linear", kept: int = KEPT, **changes: Any) -> Any:
    """Return a retrofitted model with random weights, whose last layers never read."""
    config = AutoConfig.for_model("llama", **{**SMOLLM2, **changes}, num_hidden_layers=layers)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    unread_layers = tuple(range(layers - unread, layers))
    install(model, RetrofitSettings(unread=unread_layers, kind=kind, kept=kept, price=1.0))
    return model


@contextlib.contextmanager
def drawn_reads(model: Any, share: float, generator: torch.Generator) -> Iterator[None]:
    """Let so large a share of the tokens read in every layer that has a router, at random."""

    def hook(module: Any, args: Any, told: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        reads = torch.rand(told[0].shape, generator=generator) < share
        return torch.where(reads, 10.0, -5.0) + 0 * told[0], torch.full_like(told[1], -30.0)

    routers = [memory.router for memory in memories(model).values() if memory.router is not None]
    handles = [router.register_forward_hook(hook) for router in routers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def filled(model: Any, batch: int, length: int, generator: torch.Generator, *, ours: bool) -> DynamicCache:
    """Return a cache with so many random entries in each layer."""
    config, cache = model.config, DynamicCache()
    shape = (batch, config.num_key_value_heads, length, config.hidden_size // config.num_attention_heads)
    # All layers hold the same: what is read costs alike.
    key, value = (torch.randn(shape, generator=generator) for _ in range(2))
    score = torch.randn(shape[:3], generator=generator)
    alignment = Alignment(order=None, count=torch.full((batch,), length))
    for layer in attention_blocks(model):
        if ours:
            memory = memories(model)[layer]
            made = cache_layer(cache, layer, reach=memory.reach, bounded=memory.router is None)
            made.write(key, value, alignment, score if memory.reach.kept else None)
        else:
            cache.update(key, value, layer)
    return cache


def compare_decoding(model: Any, batch: int, length: int, generator: torch.Generator) -> dict[str, Any]:
    """Time single tokens of the whole model, and of its attention blocks alone."""
    caches = [filled(model, batch, length, generator, ours=ours) for ours in (True, False)]
    sizes = [cache_bytes(cache) for cache in caches]
    last = torch.full((batch, 1), 5)

    def plain() -> None:
        with untouched(model):
            decode(model, caches[1], last, 1)

    whole = take_turns(lambda: decode(model, caches[0], last, 1), plain, rounds=ROUNDS, clock=process_time)
    attention = attention_alone(model, caches, batch, generator)
    return {"whole": asdict(whole), "attention": asdict(attention), "cache_bytes": sizes}


def attention_alone(model: Any, caches: list[Any], batch: int, generator: torch.Generator) -> Timing:
    """Time all attention blocks on one token, one after the other: projections, memories, cache."""
    blocks = list(attention_blocks(model).values())
    hidden = torch.randn(batch, 1, model.config.hidden_size, generator=generator)
    place = torch.full((batch, 1), int(caches[0].get_seq_length()))
    angles = model.model.rotary_emb(hidden, place)

    def run(cache: Any) -> None:
        for block in blocks:
            block(
                hidden_states=hidden,
                position_embeddings=angles,
                attention_mask=None,
                past_key_values=cache,
            )

    def plain() -> None:
        with untouched(model):
            run(caches[1])

    return take_turns(lambda: run(caches[0]), plain, rounds=ROUNDS, clock=process_time)


def compare_prefill(model: Any, length: int, generator: torch.Generator) -> dict[str, Any]:
    """Time one sequence from start to end."""
    ids = torch.randint(5, 40_000, (1, length), generator=generator) % model.config.vocab_size

    def run() -> None:
        model.base_model(input_ids=ids, use_cache=True)

    def plain() -> None:
        with untouched(model):
            run()

    return {"whole": asdict(take_turns(run, plain, rounds=2, warm_up=0, clock=process_time))}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    for name, default in (("length", 8192), ("batch", 8), ("layers", 30), ("unread", 12), ("kept", KEPT)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--reads", type=float, default=0.1)
    parser.add_argument("--kinds", nargs="+", default=["linear", "low_rank"], help="of semantic memory")
    parser.add_argument("--questions", nargs="+", default=["prefill", "decode"])
    parser.add_argument("--out", type=Path, default=HERE / "retrofit_cpu.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    records = json.loads(given.out.read_text()) if given.out.is_file() else []

    def add(question: str, model: Any, batch: int, found: dict[str, Any]) -> None:
        settings = retrofit_of(model).settings
        fixed = {"question": question, "length": given.length, "batch": batch, "layers": given.layers}
        made = {"unread": len(settings.unread), "kind": settings.kind, "kept": settings.kept}
        records.append({**fixed, **made, "reads": given.reads, **found})
        sys.stdout.write(json.dumps(records[-1]) + "\n")
        sys.stdout.flush()
        given.out.write_text(json.dumps(records, indent=1) + "\n")

    with torch.no_grad():
        made = [(0, kind) for kind in given.kinds] + [(given.unread, given.kinds[-1])]
        for unread, kind in dict.fromkeys(made):
            model = make_model(given.layers, unread, kind=kind, kept=given.kept)
            with drawn_reads(model, given.reads, generator):
                if "prefill" in given.questions:
                    add("prefill", model, 1, compare_prefill(model, given.length, generator))
                for batch in dict.fromkeys((given.batch, 1)) if "decode" in given.questions else ():
                    add("decode", model, batch, compare_decoding(model, batch, given.length, generator))


if __name__ == "__main__":
    main()
