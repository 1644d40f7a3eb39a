"""Figures on the front pages are those of the rows of the experiments, and of the code that is there."""

import csv
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pytest

from torchcram.runs.source import source_hash

ROOT = Path(__file__).parents[1]
# What a page says below its figures while some of them are not of the present code.
CAPTION = "trained with earlier code"


@dataclass(frozen=True)
class Shown:
    """Words of a page, made from the mean of some rows.

    Attributes:
        page: where they stand.
        rows: file of the rows.
        which: fields of the rows that are meant.
        words: with the fields of the rows in braces.
    """

    page: str
    rows: str
    which: tuple[tuple[str, str], ...]
    words: str


def srcd(page: str, method: str, words: str) -> Shown:
    return Shown(page, "01_srcd_main/results.csv", (("scale", "demo"), ("method", method)), words)


SHOWN = [
    srcd("README.md", "cram", "{retrieval_accuracy:.1%} right at {any_layer_read_rate:.1%} reads"),
    srcd("README.md", "cram", "and a floor of {any_layer_floor:.1%}"),
    srcd("README.md", "transformer", "A dense Transformer: {retrieval_accuracy:.1%} at 100%"),
    srcd("README.md", "cram_no_consolidation", "{retrieval_accuracy:.1%} right at {any_layer_read_rate:.1%}"),
    srcd("README.md", "cram_paper", "{retrieval_accuracy:.0%} right at {any_layer_read_rate:.0%} reads"),
    srcd(
        "docs/when_to_use.md",
        "cram_no_consolidation",
        "from {any_layer_read_rate:.1%} without semantic memory",
    ),
    srcd("docs/when_to_use.md", "cram", "to {any_layer_read_rate:.1%} with it"),
    Shown(
        "README.md",
        "14_retrofit_smollm2/rows_kept_64.csv",
        (("stage", "routed"), ("asked_reads", "0.1")),
        "at {reads:.0%} reads {divergence:.4f} nats",
    ),
    Shown(
        "README.md",
        "14_retrofit_smollm2/rows_kept_64.csv",
        (("stage", "acquired"), ("asked_reads", "0.0")),
        "without a single read {divergence:.4f} nats",
    ),
]


def rows_of(shown: Shown) -> list[dict[str, str]]:
    with (ROOT / "experiments" / shown.rows).open(newline="") as handle:
        rows = [
            row for row in csv.DictReader(handle) if all(row[name] == value for name, value in shown.which)
        ]
    # Rows of the present code go before others.
    fresh = [row for row in rows if row.get("source") == source_hash()]
    return fresh or rows


def words_of(shown: Shown) -> str:
    values: dict[str, list[float]] = {}
    for row in rows_of(shown):
        for name, text in row.items():
            with suppress(ValueError):
                values[name] = [*values.get(name, []), float(text)]
    return shown.words.format(**{name: mean(several) for name, several in values.items()})


def plain(page: str) -> str:
    return " ".join((ROOT / page).read_text().split())


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.page} {shown.words}")
def test_a_page_shows_what_the_rows_say(shown):
    assert words_of(shown) in plain(shown.page)


@pytest.mark.parametrize("page", sorted({shown.page for shown in SHOWN if "01_" in shown.rows}))
def test_figures_of_other_code_are_owned_up_to(page):
    sources = {
        row["source"] for shown in SHOWN if shown.page == page for row in rows_of(shown) if "source" in row
    }
    assert (sources == {source_hash()}) != (CAPTION in plain(page))


def test_the_headline_figure_is_that_of_the_claim():
    shown, made = ROOT / "docs/figures/headline.png", ROOT / "experiments/01_srcd_main/figure_demo.png"
    assert shown.read_bytes() == made.read_bytes(), f"copy {made} to {shown}"


def test_other_figures_would_be_noticed(monkeypatch):
    shown = SHOWN[0]
    changed = [{**row, "any_layer_read_rate": "0.5"} for row in rows_of(shown)]
    monkeypatch.setattr(f"{__name__}.rows_of", lambda _: changed)
    assert words_of(shown) not in plain(shown.page)
