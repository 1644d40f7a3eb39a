"""What an exam of retrieval is made of: facts that are scattered over filler, and talks about them.

Every answer stands in the context word for word, so that only looking it up is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

FIRST_NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Henry", "Irene", "Jacob")
LAST_NAMES = ("Berg", "Carter", "Dunn", "Fischer", "Gray", "Hill", "Lind", "Moore", "Novak", "Stone")
TOWNS = ("Oslo", "Lima", "Paris", "Cairo", "Madrid", "Boston", "Tokyo", "Vienna", "Dublin", "Rome")
COLOURS = ("red", "blue", "green", "white", "black", "yellow", "brown", "pink", "grey", "purple")
THINGS = ("lamp", "chair", "box", "door", "boat", "coat", "clock", "book", "bottle", "table")
WORDS = ("amber", "bread", "cloud", "drum", "eagle", "forest", "garden", "honey", "island", "jungle")
DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and its only right answer.

    Attributes:
        text: ends where the answer begins.
        answer: begins with a blank.
    """

    text: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One context, and what is asked about it.

    Attributes:
        facts: sentences, in the order in which they are scattered over the filler.
        talks: each starts from the context alone; its questions follow each other, and the last one counts.
    """

    facts: tuple[str, ...]
    talks: tuple[tuple[Question, ...], ...]


# Draws a paper.
Task = Callable[[random.Random], Paper]


def number(draw: random.Random) -> str:
    """Return a number of :data:`DIGITS` digits."""
    return str(draw.randrange(10 ** (DIGITS - 1), 10**DIGITS))


def asked(question: str, beginning: str, answer: str) -> Question:
    """Return a question with the beginning of its answer."""
    return Question(text=f"\nQuestion: {question}\nAnswer: {beginning}", answer=f" {answer}")


def codes(draw: random.Random, count: int) -> list[tuple[str, str]]:
    """Return so many different things, each with a code of its own."""
    things = draw.sample([f"{colour} {thing}" for colour in COLOURS for thing in THINGS], count)
    return [(thing, number(draw)) for thing in things]


def code_fact(thing: str, code: str) -> str:
    """Return the sentence that tells a code."""
    return f"The code of the {thing} is {code}."


def code_question(thing: str, code: str) -> Question:
    """Return the question about it."""
    return asked(f"What is the code of the {thing}?", f"The code of the {thing} is", code)
