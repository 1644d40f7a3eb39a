"""Variable tracking: a value is handed from name to name, and asked for at the last one."""

from __future__ import annotations

import random
from itertools import pairwise

from torchcram.pretrained.judging.exam import Paper, Question, number

CHAINS, NAMES = 2, 3
LETTERS = "abcdefghkmnpqrstuvwxyz"


def variable_tracking(draw: random.Random) -> Paper:
    """Two chains of names, mixed: the first name of each has a value, each further one that of the last.

    >>> paper = variable_tracking(random.Random(0))
    >>> len(paper.facts), len(paper.talks)
    (6, 2)
    """
    names = [f"{letter}{draw.randint(2, 9)}" for letter in draw.sample(LETTERS, CHAINS * NAMES)]
    chains = [(number(draw), names[start::CHAINS]) for start in range(CHAINS)]
    steps = [_steps(value, chain) for value, chain in chains]
    return Paper(
        facts=tuple(fact for together in zip(*steps, strict=True) for fact in together),
        talks=tuple(
            (Question(text=f"\nThe value of the variable {chain[-1]} is", answer=f" {value}"),)
            for value, chain in chains
        ),
    )


def _steps(value: str, chain: list[str]) -> list[str]:
    handed = [f"The variable {later} has the value of {former}." for former, later in pairwise(chain)]
    return [f"The value of the variable {chain[0]} is {value}.", *handed]
