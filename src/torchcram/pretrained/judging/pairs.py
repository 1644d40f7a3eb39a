"""Pairs: a register of keys and values that stands in one place, and people who share their first name."""

from __future__ import annotations

import random

from torchcram.pretrained.judging.exam import (
    FIRST_NAMES,
    LAST_NAMES,
    TOWNS,
    WORDS,
    Paper,
    Question,
    asked,
    number,
)

PEOPLE, ASKED = 4, 4


def key_value_pairs(draw: random.Random) -> Paper:
    """A register with one line for each key; some lines are asked for."""
    values = {key: number(draw) for key in draw.sample(WORDS, len(WORDS))}
    lines = "\n".join(f"{key} = {value}" for key, value in values.items())
    return Paper(
        facts=(f"\nThe register:\n{lines}\n",),
        talks=tuple(
            (Question(text=f"\nA line of the register, once more:\n{key} =", answer=f" {values[key]}"),)
            for key in draw.sample(WORDS, ASKED)
        ),
    )


def repeated_names(draw: random.Random) -> Paper:
    """People of one first name, who live in different towns; each is asked for by both names."""
    first = draw.choice(FIRST_NAMES)
    people = [f"{first} {last}" for last in draw.sample(LAST_NAMES, PEOPLE)]
    homes = dict(zip(people, draw.sample(TOWNS, PEOPLE), strict=True))
    return Paper(
        facts=tuple(f"{person} lives in {town}." for person, town in homes.items()),
        talks=tuple(
            (asked(f"Where does {person} live?", f"{person} lives in", town),)
            for person, town in homes.items()
        ),
    )
