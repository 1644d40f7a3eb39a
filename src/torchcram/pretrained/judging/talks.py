"""More than one question: a second turn about the same context, and two instructions at once."""

from __future__ import annotations

import random

from torchcram.pretrained.judging.exam import Paper, Question, code_fact, code_question, codes

KEYS = 6


def two_turns(draw: random.Random) -> Paper:
    """A second question, about something else, after the first one was answered; the second one counts."""
    told = codes(draw, KEYS)
    first, second, third, fourth = (code_question(*each) for each in draw.sample(told, 4))
    return Paper(facts=tuple(code_fact(*each) for each in told), talks=((first, second), (third, fourth)))


def two_instructions(draw: random.Random) -> Paper:
    """Two codes in one answer."""
    told = codes(draw, KEYS)
    chosen = draw.sample(told, 4)
    return Paper(
        facts=tuple(code_fact(*each) for each in told),
        talks=tuple((_both(*pair),) for pair in (chosen[:2], chosen[2:])),
    )


def _both(first: tuple[str, str], second: tuple[str, str]) -> Question:
    text = (
        f"\nQuestion: What is the code of the {first[0]}, and what is the code of the {second[0]}?\n"
        f"Answer: The codes of the {first[0]} and of the {second[0]} are"
    )
    return Question(text=text, answer=f" {first[1]} and {second[1]}")
