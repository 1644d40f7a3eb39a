"""An exam of retrieval: each task as a share of what the untouched model answers, the worst one first.

A context is read once and kept; every talk goes on from a copy of the cache. An answer is right if each of
its tokens is the likeliest one: then greedy decoding writes it, and no other.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchcram.pretrained.judging.exam import Paper, Question, Task
from torchcram.pretrained.judging.haystack import context_of, tokens_of
from torchcram.pretrained.judging.needles import needle, several_keys
from torchcram.pretrained.judging.pairs import key_value_pairs, repeated_names
from torchcram.pretrained.judging.talks import two_instructions, two_turns
from torchcram.pretrained.judging.variables import variable_tracking
from torchcram.pretrained.retrofit.install import memories, reading
from torchcram.pretrained.retrofit.judge import Counted, Way

TASKS: dict[str, Task] = {
    "needle": needle,
    "several keys": several_keys,
    "key-value pairs": key_value_pairs,
    "repeated names": repeated_names,
    "variable tracking": variable_tracking,
    "two turns": two_turns,
    "two instructions": two_instructions,
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a model answered in one task.

    Attributes:
        task: its name.
        way: what the model was made to do.
        right: answers that are right.
        untouched: those of the untouched model.
        asked: how many answers there were.
        reads: share of token x layer that read.
    """

    task: str
    way: str
    right: int
    untouched: int
    asked: int
    reads: float

    @property
    def share(self) -> float | None:
        """Accuracy as a share of the untouched model's; None where that one answers nothing."""
        return self.right / self.untouched if self.untouched else None


@torch.no_grad()
def examine(
    model: Any,
    tokenizer: Any,
    ways: Mapping[str, Way],
    *,
    papers: int,
    context: int,
    draw: random.Random,
    tasks: Mapping[str, Task] | None = None,
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[Score]:
    """Let a retrofitted model sit the exam.

    Args:
        model: retrofitted, at rest.
        tokenizer: its own.
        ways: by name, what the model is made to do; the untouched model is asked beside them.
        papers: of each task.
        context: tokens of each paper's context.
        draw: of the papers.
        tasks: by name; :data:`TASKS` if None.
        advance: is told the tokens of each finished context.

    Returns:
        A score for each task and way, those of the worst task first.
    """
    everything = {"untouched": lambda: reading(model, "all"), **ways}
    scores = []
    for task, drawn in (tasks or TASKS).items():
        right = dict.fromkeys(everything, 0)
        reads = {name: torch.zeros(2, dtype=torch.float64) for name in everything}
        count = 0
        for _ in range(papers):
            paper = drawn(draw)
            ids = context_of(paper, tokenizer, tokens=context, draw=draw)
            count += len(paper.talks)
            for name, way in everything.items():
                counted = Counted(memories(model))
                with way(), counted:
                    right[name] += _sit(model, tokenizer, paper, ids)
                reads[name] += counted.reads
            advance(context)
        scores += [
            Score(
                task=task,
                way=name,
                right=right[name],
                untouched=right["untouched"],
                asked=count,
                reads=float(reads[name][0] / reads[name][1]),
            )
            for name in ways
        ]
    return worst_first(scores)


def worst_first(scores: list[Score]) -> list[Score]:
    """Return the scores by task, the task with the least share first; what the untouched model cannot do
    comes last.
    """
    least: dict[str, float] = {}
    for score in scores:
        share = float("inf") if score.share is None else score.share
        least[score.task] = min(share, least.get(score.task, float("inf")))
    return sorted(scores, key=lambda score: least[score.task])


def _sit(model: Any, tokenizer: Any, paper: Paper, ids: Tensor) -> int:
    """Return how many talks end in the right answer."""
    device = model.get_input_embeddings().weight.device
    kept = model.base_model(input_ids=ids[None].to(device), use_cache=True).past_key_values
    return sum(_talk(model, tokenizer, talk, copy.deepcopy(kept)) for talk in paper.talks)


def _talk(model: Any, tokenizer: Any, talk: tuple[Question, ...], cache: Any) -> bool:
    right = False
    for question in talk:
        ids, answer = tokens_of(question, tokenizer)
        ids = ids.to(model.get_input_embeddings().weight.device)
        logits = model(input_ids=ids[None], past_key_values=cache, use_cache=True).logits[0]
        right = torch.equal(logits[-answer - 1 : -1].argmax(-1), ids[-answer:])
    return right
