"""Needles in a haystack: a fact that is like no other, and a fact among others of its kind."""

from __future__ import annotations

import random

from torchcram.pretrained.judging.exam import (
    FIRST_NAMES,
    TOWNS,
    Paper,
    asked,
    code_fact,
    code_question,
    codes,
    number,
)

KEYS, ASKED = 8, 4


def needle(draw: random.Random) -> Paper:
    """Three facts, each of its own kind.

    >>> needle(random.Random(0)).facts[0]
    'The secret number of the day is 60494.'
    """
    secret, town, name = number(draw), draw.choice(TOWNS), draw.choice(FIRST_NAMES)
    return Paper(
        facts=(
            f"The secret number of the day is {secret}.",
            f"The ship will land in {town}.",
            f"The name of the winner is {name}.",
        ),
        talks=(
            (asked("What is the secret number of the day?", "The secret number of the day is", secret),),
            (asked("Where will the ship land?", "The ship will land in", town),),
            (asked("What is the name of the winner?", "The name of the winner is", name),),
        ),
    )


def several_keys(draw: random.Random) -> Paper:
    """Codes of several things, all told in the same words; some are asked for."""
    told = codes(draw, KEYS)
    return Paper(
        facts=tuple(code_fact(*each) for each in told),
        talks=tuple((code_question(*each),) for each in draw.sample(told, ASKED)),
    )
