"""What all HTML pages have in common: figures drawn beside them and embedded in them, and strict templates.

One file that needs nothing else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from torchcram.report.style import png

REPORT, FIGURES = "report.html", "figures"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A figure with its heading and the caption that tells a newcomer how to read it.

    Attributes:
        name: that of its PNG file.
        heading, caption: the words above and below.
        draw: makes the figure of what the page is about; None where there is nothing to show.
    """

    name: str
    heading: str
    caption: str
    draw: Callable[[Any], Figure | None]


def draw_sections(sections: Sequence[Section], subject: Any, *, folder: Path) -> list[tuple[Section, str]]:
    """Write ``figures/*.png`` into a folder; return the sections that have something to show, with their
    images as base64 text.
    """
    place = folder / FIGURES
    place.mkdir(exist_ok=True)
    shown = []
    for section in sections:
        # A figure of an earlier page must not outlive what it showed.
        (place / f"{section.name}.png").unlink(missing_ok=True)
        figure = section.draw(subject)
        if figure is not None:
            image = png(figure)
            (place / f"{section.name}.png").write_bytes(image)
            shown.append((section, embedded(image)))
    return shown


def embedded(image: bytes) -> str:
    """Return an image as the text that a page holds in its place."""
    return base64.b64encode(image).decode("ascii")


def render_file(package: str, template: str, /, **fields: object) -> str:
    """Return a page from a template file of a package."""
    return render(files(package).joinpath(template).read_text(encoding="utf-8"), **fields)


def render(template: str, **fields: object) -> str:
    """Return a page from the text of a template; what it asks for must be given, and is escaped."""
    return (
        Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(**fields)
    )


def pretty(content: object) -> str:
    """Return plain data as indented JSON, for people."""
    return json.dumps(content, indent=2, ensure_ascii=False)


def between(text: str, *, marks: tuple[str, str], content: str) -> str:
    """Put ``content`` between the two marks of a text.

    Raises:
        ValueError: if it has no such marks.
    """
    if not all(mark in text for mark in marks):
        raise ValueError(
            f"a README of a claim needs the marks {marks[0]!r} and {marks[1]!r}: put them back, or delete it"
        )
    start, end = text.index(marks[0]) + len(marks[0]), text.index(marks[1])
    return f"{text[:start]}\n{content}\n{text[end:]}"
