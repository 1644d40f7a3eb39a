"""The report of an analysis says what was found, in words and figures, in one file."""

import pytest

from planted_findings import details, plan, summary, write
from torchcram.pretrained.analysis.figures import causal_figure, class_figure, threshold_figure
from torchcram.pretrained.analysis.layer_plots import head_figure, layer_figure, measures_figure
from torchcram.pretrained.analysis.page import SECTIONS, write_analysis_page
from torchcram.pretrained.analysis.story import (
    analysis_rows,
    analysis_story,
    analysis_tiles,
    cost_words,
    eighty_eight,
)


def lines(axes):
    return {
        line.get_label(): (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
        for line in axes.get_lines()
    }


def test_the_page_holds_everything_and_needs_nothing(tmp_path):
    page = write_analysis_page(write(tmp_path)).read_text()
    assert page.count("data:image/png;base64,") == len(SECTIONS)
    assert "http://" not in page
    assert 'src="http' not in page
    assert "Tiny &lt;model&gt;" in page
    assert "&lt;citizens&gt;" in page
    assert "rgba(0, 114, 178, 0.30)" in page
    assert "rgba(213, 94, 0, 0.50)" in page
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {
        section.name for section in SECTIONS
    }


def test_an_unfinished_analysis_is_refused(tmp_path):
    with pytest.raises(
        ValueError,
        match=(
            r"holds no finished analysis: it has no details\.json; run torchcram analyze again to "
            r"finish it"
        ),
    ):
        write_analysis_page(tmp_path)


def test_the_story_says_what_was_found_and_how_sure_it_is():
    headline, predictable, planned, paper, certainty = analysis_story(summary(), details(), plan())
    assert headline == (
        "The best 4 of 6 attention layers can be replaced by probes at +0.016 nats per token (loss "
        "3.050), where they look at a buffer of fixed size, 25% of the entries of a window of 512; "
        "dropping the same layers costs +0.440."
    )
    assert "buffer" not in analysis_story(summary(), details() | {"replaced_looks_at": 0.0}, plan())[0]
    assert "explains 15% to 90% of the variance" in predictable
    assert (
        "replace the attention of layers 3, 5 (predicted +0.011 nats), or skip 50% of all reads "
        "by predicted harm (predicted +0.013 nats)."
    ) in planned
    assert (
        "Here 88% are reached by explained variance above 0.10, cosine above 0.24; centred cosine "
        "and 1 - relative error pass 88% at no threshold"
    ) in paper
    assert "200,171 tokens to fit (12 documents)" in certainty
    assert "8,184 test tokens of 8 documents, those of routing from 4,096" in certainty


def test_what_cannot_be_had_is_said():
    poor = summary()
    poor["replace_best"] = {"1": 0.3}
    assert analysis_story(poor, details(), plan() | {"tokens": None})[0].startswith(
        "None of the 6 attention layers measured here can be replaced"
    )
    assert (
        "no routing of single tokens stays below 0.02 nats"
        in analysis_story(poor, details(), plan() | {"tokens": None})[2]
    )
    assert "Here no definition reaches 88%" in eighty_eight({"paper_share_at": {"cosine": None}})


def test_tiles_and_table_hold_the_figures():
    tiles = analysis_tiles(summary(), details())
    assert ("+0.016", "nats: 4 of 6 layers replaced", "dropped: +0.440") in tiles
    assert ("1.30x", "time of statistics and probes", "over plain forward passes") in tiles
    assert analysis_rows(summary(), details())[2][:2] == ("4", "+0.016 (+0.013 to +0.019)")
    assert "Statistics and probes 2 min 10 s, against 1 min 40 s" in cost_words(details())


def test_the_headline_figure_holds_the_measured_costs():
    whole, tokens = causal_figure(details()).axes
    assert lines(whole)["replaced, refitted"] == (
        pytest.approx([0.75 / 6, 1.5 / 6, 3 / 6]),
        [0.004, 0.008, 0.016],
    )
    assert lines(whole)["dropped, the same"][0] == pytest.approx([1 / 6, 2 / 6, 4 / 6])
    assert lines(tokens)["predicted harm"] == ([0.25, 0.5, 0.75], [0.025, 0.05, pytest.approx(0.075)])


def test_the_other_figures_hold_the_measured_values():
    left, right = threshold_figure(details()).axes
    assert lines(left)["cosine"][1][0] == pytest.approx(0.95)
    assert len(lines(right)) == 5
    above, below = layer_figure(details()).axes
    assert lines(above)["ridge"][1] == pytest.approx([0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
    assert lines(below)["dropped"][1][0] == 0.4
    assert head_figure(details()).axes[0].images[0].get_array().shape == (3, 6)
    assert [text.get_text() for text in class_figure(details()).axes[0].get_yticklabels()] == [
        "punctuation (12.0%)",
        "rare token (10.0%)",
    ]
    assert lines(measures_figure(details()).axes[2])["mean"][0] == [1, 4, 16]
