"""The words of a claim stand in the README of its results, and the package carries them to new folders."""

from pathlib import Path

import pytest

from fake_runs import TOY
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.readme import MARKS, Words, readme_of, words_of

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_says_what_it_asks_what_the_paper_says_and_how_to_read_it(claim):
    words = words_of(claim, EXPERIMENTS)
    assert words.question.endswith("?")
    assert words.paper.endswith(".")
    assert words.reading.endswith(".")
    assert all(mark in readme_of(claim, EXPERIMENTS) for mark in MARKS)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_new_folder_begins_with_the_same_words_and_without_results(claim, tmp_path):
    begun = readme_of(claim, tmp_path)
    assert words_of(claim, tmp_path) == words_of(claim, EXPERIMENTS)
    assert "**What came out**" not in begun
    assert begun.endswith(f"\n\n{MARKS[0]}\n{MARKS[1]}\n")


def test_a_claim_without_a_readme_anywhere_has_its_name_alone(tmp_path):
    assert readme_of(TOY, tmp_path) == f"# 99_toy\n\n{MARKS[0]}\n{MARKS[1]}\n"
    assert words_of(TOY, tmp_path) == Words(question="", paper="", reading="")


def test_words_are_those_of_the_folder_above_the_marks_whatever_their_lines(tmp_path):
    folder = tmp_path / TOY.folder
    folder.mkdir()
    (folder / "README.md").write_text(
        f"# 99_toy: Does it\nwork?\n\n**The paper**: It\ndoes.\n\n{MARKS[0]}\n\n"
        f"**How to read it**: not here.\n{MARKS[1]}\n"
    )
    assert words_of(TOY, tmp_path) == Words(question="Does it work?", paper="It does.", reading="")
