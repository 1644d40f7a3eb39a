"""The report of an analysis: one HTML file that needs nothing else, and its figures as PNG files beside
it; made from files, never from a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchcram.pretrained.analysis import figures, layer_plots
from torchcram.pretrained.analysis.story import analysis_rows, analysis_story, analysis_tiles, cost_words
from torchcram.report.page import REPORT, Section, draw_sections, pretty, render_file
from torchcram.runs.run_dir import RunDir

SECTIONS = (
    Section(
        name="causal",
        heading="What does it cost to skip reads?",
        caption="The change of the loss on test text against the share of all attention reads that are "
        "skipped. Left: whole layers, the best ones by select text; blue: replaced by probes "
        "that were refitted behind the layers replaced before, and see a summary of the tokens "
        "before and what the block finds in a buffer of fixed size (its entries count as reads "
        "that are left); green: by plain ridge probes of the input; red: the same layers "
        "dropped; ochre: the layers that are best to drop. Bands are 95% intervals over "
        "documents. Right: single tokens of all layers, picked by the true error (which needs "
        "the read), by predicted error, by predicted downstream harm; dotted: by predicted harm, "
        "but dropped. The scale is linear below 0.02 nats.",
        draw=figures.causal_figure,
    ),
    Section(
        name="thresholds",
        heading="How much is redundant? That depends on the definition",
        caption="The share of operations whose score reaches a threshold, under four definitions: one "
        "operation is the attention of one block (left) or of one head (right) for one token. "
        "Bands are 95% intervals over documents. Where a curve crosses the dashed line, 88% "
        "would be redundant.",
        draw=figures.threshold_figure,
    ),
    Section(
        name="layers",
        heading="Which layers are predictable, and which can go?",
        caption="Above: explained variance on test text of the ridge probe, the small MLP, and of "
        "controls that know only the token, the token before it, or the position (class means), "
        "or whose targets were shuffled. Below: how far the predictions move when one layer "
        "alone is replaced or dropped, on select text.",
        draw=layer_plots.layer_figure,
    ),
    Section(
        name="heads",
        heading="Which heads are predictable?",
        caption=(
            "The share of the variance of each head's output that a linear probe of the block's input "
            "explains on test text."
        ),
        draw=layer_plots.head_figure,
    ),
    Section(
        name="classes",
        heading="Which tokens are predictable?",
        caption="The share of operations, over all layers, whose score reaches 0.8, for kinds of tokens; "
        "in brackets their share of the test text. Frequent tokens make up the first half of the "
        "fit text, rare ones its last tenth.",
        draw=figures.class_figure,
    ),
    Section(
        name="measures",
        heading="Do known measures foresee the cost?",
        caption="Left: the error bound of NBL (arXiv 2505.21077) of each layer, from canonical "
        "correlations of input and output, against the measured cost of replacing it (by a probe "
        "that sees more than the bound's linear map). Middle: the cosine of the stream before "
        "and after the block (LLM-Drop, arXiv 2406.15786) against the measured cost of dropping "
        "it. Right: explained variance of the best predictions of each rank; thin lines are "
        "layers.",
        draw=layer_plots.measures_figure,
    ),
)


def write_analysis_page(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into the folder of a finished analysis.

    Returns:
        The path of the HTML file.

    Raises:
        ValueError: if the folder holds no finished analysis.
    """
    run = RunDir(folder)
    if not (folder / "details.json").is_file():
        raise ValueError(
            f"{folder} holds no finished analysis: it has no details.json; run torchcram analyze "
            "again to finish it"
        )
    summary, details, plan = (run.load_json(f"{name}.json") for name in ("summary", "details", "plan"))
    run.write_text(REPORT, _page(summary, details, plan, draw_sections(SECTIONS, details, folder=folder)))
    return folder / REPORT


def _page(
    summary: Mapping[str, Any],
    details: Mapping[str, Any],
    plan: Mapping[str, Any],
    shown: list[tuple[Section, str]],
) -> str:
    return render_file(
        "torchcram.pretrained.analysis",
        "analysis.html.jinja",
        title=details["model"]["name"],
        model=details["model"],
        story=analysis_story(summary, details, plan),
        tiles=analysis_tiles(summary, details),
        figures=shown,
        rows=analysis_rows(summary, details),
        tokens=[(one["token"], max(0.0, min(1.0, one["score"]))) for one in details["shown"]],
        cost=cost_words(details),
        files={
            "plan.json": pretty(plan),
            "Settings": pretty(details["settings"]),
            "Environment": pretty(details["environment"]),
        },
    )
