"""Kinds of tokens: where they stand, how frequent they are, what they are, and whether they repeat
something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from torchcram.pretrained.texts import Window

# Positions that are known to collect attention whatever they hold.
SINKS = 4
FREQUENT, RARE = 0.5, 0.9
NGRAM = 3

Members = dict[str, Bool[np.ndarray, " tokens"]]


def token_classes(
    windows: Sequence[Window], tokenizer: Any, counts: Int[np.ndarray, " vocabulary"]
) -> Members:
    """Return which tokens of the windows, one after the other, belong to each class.

    Args:
        windows: of the test split.
        tokenizer: says what a token looks like.
        counts: of every token in the fit split.
    """
    ids = np.concatenate([window.ids.numpy() for window in windows])
    position = np.concatenate([np.arange(len(window.ids)) for window in windows])
    frequency = _frequency(ids, counts)
    repeated = np.concatenate([repeats(window.ids.numpy()) for window in windows])
    looks = {int(token): tokenizer.decode([int(token)]) for token in np.unique(ids)}
    mark = np.array(
        [
            bool(looks[token].strip()) and not any(sign.isalnum() for sign in looks[token])
            for token in ids.tolist()
        ]
    )
    return {
        "first token (sink)": position == 0,
        f"next {SINKS - 1} tokens": (position > 0) & (position < SINKS),
        "position 4 to 63": (position >= SINKS) & (position < 64),
        "position 64 to 511": (position >= 64) & (position < 512),
        "position 512 and later": position >= 512,
        "frequent token": frequency <= FREQUENT,
        "middling token": (frequency > FREQUENT) & (frequency <= RARE),
        "rare token": frequency > RARE,
        "punctuation": mark,
        f"ends a repeated {NGRAM}-gram": repeated,
        f"ends a new {NGRAM}-gram": ~repeated & (position >= NGRAM - 1),
    }


def _frequency(
    ids: Int[np.ndarray, " tokens"], counts: Int[np.ndarray, " vocabulary"]
) -> Float[np.ndarray, " tokens"]:
    """The share of the text that more frequent tokens make up: below 0.5 for those that make up the first
    half of it.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.empty(len(counts))
    before[order] = (np.cumsum(counts[order]) - counts[order]) / max(counts.sum(), 1)
    before[counts == 0] = 1.0
    return before[ids]


def repeats(ids: Int[np.ndarray, " tokens"]) -> Bool[np.ndarray, " tokens"]:
    """Return which tokens end an n-gram that occurred before in their window."""
    seen: set[tuple[int, ...]] = set()
    repeated = np.zeros(len(ids), dtype=bool)
    for place in range(NGRAM - 1, len(ids)):
        gram = tuple(ids[place - NGRAM + 1 : place + 1].tolist())
        repeated[place] = gram in seen
        seen.add(gram)
    return repeated
