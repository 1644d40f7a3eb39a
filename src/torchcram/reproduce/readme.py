"""The README of a claim: above the marks stand the words that people write, between them what is made of the
runs.

The words are what the claim asks, what the paper says and how the table is read. They stand nowhere else: the
wheel carries the READMEs of ``experiments/`` along, for folders that have none yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchcram.reproduce.claim import Claim

README = "README.md"
MARKS = "<!-- results: written by torchcram reproduce -->", "<!-- /results -->"
PAPER, READING, OUTCOME = "**The paper**: ", "**How to read it**: ", "**What came out**: "
# Where the READMEs are: in an installed wheel, and in a checkout.
SHIPPED = (Path(__file__).parent / "experiments", Path(__file__).parents[3] / "experiments")


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of a claim; empty where its README does not have them.

    Attributes:
        question: what is asked.
        paper: what the paper says.
        reading: how to read the table, and what it cannot show.
    """

    question: str
    paper: str
    reading: str


def readme_of(claim: Claim, experiments: Path) -> str:
    """Return the README of a claim in a folder of claims, or one to begin with if it has none."""
    own = experiments / claim.folder / README
    return own.read_text(encoding="utf-8") if own.exists() else _begun(claim)


def words_of(claim: Claim, experiments: Path) -> Words:
    """Return the words of a claim, from its README in a folder of claims."""
    above, _, _ = readme_of(claim, experiments).partition(MARKS[0])
    paragraphs = [" ".join(paragraph.split()) for paragraph in above.split("\n\n")]

    def after(start: str) -> str:
        return next((text.removeprefix(start) for text in paragraphs if text.startswith(start)), "")

    return Words(question=after(f"# {claim.name}: "), paper=after(PAPER), reading=after(READING))


def _begun(claim: Claim) -> str:
    """The words of the shipped README, without what came out there."""
    files = [root / claim.folder / README for root in SHIPPED]
    shipped = next((file.read_text(encoding="utf-8") for file in files if file.exists()), f"# {claim.name}")
    words = shipped.partition(MARKS[0])[0].partition(OUTCOME)[0].strip()
    return f"{words}\n\n{MARKS[0]}\n{MARKS[1]}\n"
