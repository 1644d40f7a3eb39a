"""README and docs can be read by newcomers: short sentences, short paragraphs, small cells, and the install
line near the top.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "experiments/README.md",
    *(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")),
]


def text_of(page: str) -> str:
    """The page without its code, its comments and the targets of its links."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
    text = re.sub(r"^( {4,}.*\n)+", "", text, flags=re.M)
    text = re.sub(r"<!--.*?-->", "", text)
    return re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)


def paragraphs(page: str) -> list[str]:
    """What is no heading and no table; an item of a list is a paragraph."""
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n", text_of(page), flags=re.M)
    blocks = [
        "\n".join(line for line in block.splitlines() if not line.lstrip().startswith(("|", "#")))
        for block in re.split(r"\n\s*\n", text)
    ]
    return [" ".join(block.split()) for block in blocks if block.strip()]


def sentences(page: str) -> list[str]:
    return [
        sentence
        for paragraph in paragraphs(page)
        for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z`*(])", paragraph)
        if len(sentence.split()) > 2
    ]


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page):
    lengths = [len(sentence.split()) for sentence in sentences(page)]
    assert sum(lengths) / len(lengths) <= 16
    assert [sentence for sentence in sentences(page) if len(sentence.split()) > 45] == []


@pytest.mark.parametrize("page", PAGES)
def test_cells_and_paragraphs_are_small(page):
    cells = [
        cell.strip()
        for line in text_of(page).splitlines()
        if line.startswith("|")
        for cell in line.split("|")
    ]
    assert [cell for cell in cells if len(cell) > 200] == []
    assert [paragraph for paragraph in paragraphs(page) if len(paragraph) > 700] == []


def test_the_front_page_is_short_and_begins_with_the_install_line():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert any("pip install" in line for line in lines[:25])
