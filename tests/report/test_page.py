"""Pages are strict about what they are given, and hold nothing of an earlier page."""

import base64

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from torchcram.report.page import Section, draw_sections, render, render_file


def section(name: str, figure: Figure | None) -> Section:
    return Section(name=name, heading=name, caption=name, draw=lambda subject: figure)


def test_what_is_shown_is_written_beside_the_page_and_embedded(tmp_path):
    shown = draw_sections([section("one", Figure()), section("none", None)], None, folder=tmp_path)
    assert [one.name for one, _ in shown] == ["one"]
    assert (tmp_path / "figures" / "one.png").read_bytes() == base64.b64decode(shown[0][1])
    assert not (tmp_path / "figures" / "none.png").exists()


def test_a_figure_of_an_earlier_page_does_not_outlive_what_it_showed(tmp_path):
    draw_sections([section("one", Figure())], None, folder=tmp_path)
    assert draw_sections([section("one", None)], None, folder=tmp_path) == []
    assert not (tmp_path / "figures" / "one.png").exists()


def test_the_figure_is_drawn_of_the_subject(tmp_path):
    seen = []
    draw_sections([Section(name="one", heading="", caption="", draw=seen.append)], "subject", folder=tmp_path)
    assert seen == ["subject"]


def test_words_are_escaped_and_what_is_missing_is_an_error():
    assert render("<p>{{ words }}</p>", words="a < b") == "<p>a &lt; b</p>"
    with pytest.raises(UndefinedError):
        render("{{ words }}")
    with pytest.raises(UndefinedError):
        render_file("torchcram.pretrained.analysis", "checkpoints.html.jinja", title="t")
