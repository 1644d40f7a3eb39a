"""Plain filler of any length, with facts scattered over it."""

from __future__ import annotations

import random
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from torchcram.pretrained.judging.exam import Paper, Question

# Facts stand in this share of the filler, so that none is near to the question.
FIRST_SHARE = 0.9
SUBJECTS = (
    "The farmer", "A young teacher", "The old sailor", "My neighbour", "The baker", "A tired doctor",
    "The gardener", "Our postman", "The painter", "A quiet child", "The driver", "The librarian",
)  # fmt: skip
DEEDS = (
    "walked along the river", "closed the window", "looked at the sky", "bought some bread",
    "waited for the rain to stop", "told a long story", "repaired the fence", "sat under the tree",
    "counted the birds", "wrote a short letter", "went home early", "drank a cup of tea",
)  # fmt: skip
WHEN = (
    "in the morning", "after lunch", "before it was dark", "on a cold day", "while the others slept",
    "as on every Sunday", "without saying a word", "with a smile", "for the second time", "near the market",
)  # fmt: skip


def sentence(draw: random.Random) -> str:
    """Return a sentence of filler.

    >>> sentence(random.Random(0))
    'The gardener drank a cup of tea in the morning.'
    """
    return f"{draw.choice(SUBJECTS)} {draw.choice(DEEDS)} {draw.choice(WHEN)}."


def encoded(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text alone."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def context_of(paper: Paper, tokenizer: Any, *, tokens: int, draw: random.Random) -> Int[Tensor, " tokens"]:
    """Return a context with the facts of a paper in it.

    Args:
        paper: whose facts.
        tokenizer: of the model; a token that begins every text comes first.
        tokens: of the context, exactly.
        draw: of filler and places.

    Raises:
        ValueError: if the facts alone are longer.
    """
    begin = list(tokenizer("", add_special_tokens=True, verbose=False)["input_ids"])
    facts = [encoded(tokenizer, f" {fact}") for fact in paper.facts]
    room = tokens - len(begin) - sum(map(len, facts))
    if room < 0:
        raise ValueError(
            f"a context of {tokens} tokens is too short for the facts of an exam ({tokens - room} tokens): "
            "use a longer one"
        )
    filler: list[list[int]] = []
    while sum(map(len, filler)) < room:
        filler.append(encoded(tokenizer, f" {sentence(draw)}"))
    last = int(FIRST_SHARE * len(filler))
    # Not before the first sentence: the first tokens of all are near to every token.
    places = sorted(draw.randint(min(1, last), last) for _ in facts)
    parts: list[int] = list(begin)
    for number, told in enumerate([*filler, []]):
        for place, fact in zip(places, facts, strict=True):
            parts += fact if place == number else []
        parts += told
    # What is too much is cut off the end of the filler.
    return torch.tensor(parts[:tokens])


def tokens_of(question: Question, tokenizer: Any) -> tuple[Int[Tensor, " tokens"], int]:
    """Return the tokens of a question with its answer, and how many of them are the answer's."""
    alone, whole = (encoded(tokenizer, text) for text in (question.text, question.text + question.answer))
    shared = next(
        (place for place, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone)
    )
    return torch.tensor(whole), len(whole) - shared
