"""Text in the colours of the memories that answered it: one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torchcram.report.page import render
from torchcram.report.style import ROUTE_COLOURS
from torchcram.types import Route

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 16px/1.7 Georgia, serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1, h2, p.key { font-family: system-ui, sans-serif } pre { white-space: pre-wrap; font: inherit }
span { border-radius: 2px }
{% for route in routes %}.{{ route.name }} { border-bottom: 3px solid {{ colours[route] }} } {% endfor %}
.EPISODIC { background: {{ colours[episodic] }}33 }
</style></head><body><h1>{{ title }}</h1><p>{{ caption }}</p>
<p class="key">
{% for route in routes %}<span class="{{ route.name }}">{{ route.name | lower }} memory</span> {% endfor %}
</p>
{% for passage in passages %}<h2>{{ passage.heading }}</h2>
<pre>{% for token, route in passage.tokens -%}
<span class="{{ names[route] }}">{{ token }}</span>
{%- endfor %}</pre>{% endfor %}
</body></html>
"""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A heading, and each token's text with the dearest route that it took in any layer."""

    heading: str
    tokens: Sequence[tuple[str, int]]


def text_page(title: str, caption: str, passages: Sequence[Passage]) -> str:
    """Return the page.

    Args:
        title: heading of the page.
        caption: how to read it.
        passages: what it shows.
    """
    names = {int(route): route.name for route in Route}
    return render(
        PAGE,
        title=title,
        caption=caption,
        passages=passages,
        routes=list(Route),
        names=names,
        colours=ROUTE_COLOURS,
        episodic=Route.EPISODIC,
    )
