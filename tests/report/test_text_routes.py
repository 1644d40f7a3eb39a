"""Coloured text: every token in its place, in its colour, and nothing of it taken for markup."""

import re

from torchcram.report.style import ROUTE_COLOURS
from torchcram.report.text_routes import Passage, text_page
from torchcram.types import Route


def test_tokens_stand_in_their_colours_and_are_escaped():
    page = text_page(
        "Routes & reads",
        "Orange is a read.",
        [Passage(heading="1990-Bush-1", tokens=[("the", 0), (" <b>", 2), (" Union", 1)])],
    )
    found = re.findall(r'<span class="(\w+)">(.*?)</span>', page.split("<pre>")[1])
    assert found == [("WORKING", "the"), ("EPISODIC", " &lt;b&gt;"), ("SEMANTIC", " Union")]
    assert "Routes &amp; reads" in page
    assert all(ROUTE_COLOURS[route] in page for route in Route)
