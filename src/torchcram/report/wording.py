"""How numbers and terms are written for people: percentages that never round a miss away, factors, durations,
and the glossary.

Every table, figure and sentence of a report takes its words from here. It knows nothing of runs.
"""

from __future__ import annotations

GLOSSARY = {
    "read": (
        "Any operation whose cost grows with the length of the context. Recurrent state of a fixed "
        "size is no read."
    ),
    "any-layer read rate": (
        "Share of steps that read the key-value memory in at least one layer. The headline figure."
    ),
    "read rate of a layer": "Share of steps that read the key-value memory in that layer.",
    "attention share": (
        "Keys really scanned, summed over layers and steps, over what dense causal attention in all "
        "layers would scan."
    ),
    "floor": "What an oracle that knows every recurring pattern by heart still has to read: the queries "
    "that only the context can answer. It is counted on the evaluated sequences, not estimated.",
    "working, semantic, episodic": "The three memories. Working memory is a recurrent state and free; "
    "semantic memory holds in parameters what recurs; episodic memory is "
    "attention over the context, and the only one that costs a read.",
    "recurring, novel, overridden": "Queries for a pattern that is the same in every sequence; for a key "
    "that is new in its sequence; for a recurring key that its sequence "
    "has bound to another value.",
    "acquire, consolidate, mature": "The phases of training: every step reads until retrieval is "
    "learned; the router takes over and a read has a rising price; the "
    "read rate has settled.",
    "quality": (
        "How well semantic memory reproduces what a read returned, from 0 to 1. Observable only where "
        "something was read."
    ),
    "familiarity": "The router's prediction of the quality, made without reading.",
    "explored": (
        "A small share of the steps that would not read is read all the same in training, to keep the "
        "router honest. Its cost is counted in training."
    ),
    "exposures": "How often a pattern had been queried when a query for it came.",
    "reduction": "Peak over final value. Two causes are told apart: steps that need no retrieval at all, "
    "and recurring queries that are answered from parameters (consolidation).",
    "transition step": (
        "First training step after which the any-layer read rate stays at or below 1.5 times its final value."
    ),
    "detected transition": (
        "The sharpest fall of the any-layer read rate, found by fitting up to three jumps to its logarithm."
    ),
    "mixing FLOPs, bytes": "Work and memory traffic of episodic and semantic memory, familiarity "
    "estimator and surprise trace together, over those of dense attention.",
    "training attention share": (
        "All keys scanned in training (acquisition, exploration and dense reference passes included) "
        "over those of dense training."
    ),
}


def percent(share: float) -> str:
    """Write a share in [0, 1] as a percentage with up to two decimals; only exactly 1 is "100%", only
    exactly 0 is "0%".
    """
    text = f"{100 * share:.2f}".rstrip("0").rstrip(".")
    if text == "100" and share < 1:
        return "> 99.99%"
    if text in {"0", "-0"} and share != 0:
        return "< 0.01%"
    return f"{text}%"


def factor(ratio: float) -> str:
    """Write a ratio: "1.08x", "37.8x", "120x"."""
    digits = 2 if ratio < 10 else 1 if ratio < 100 else 0
    return f"{ratio:,.{digits}f}x"


def times(ratio: float) -> str:
    """Write a ratio in a sentence: "1.08 times"."""
    return f"{factor(ratio).removesuffix('x')} times"


def count(number: float) -> str:
    """Write a whole number with thousands separated."""
    return f"{round(number):,}"


def duration(seconds: float) -> str:
    """Write a duration: "42 s", "7 min 50 s", "2 h 05 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
