"""The report of a run: one HTML file that needs nothing else, and the figures as PNG files beside it.

Input is the files of a run, never a model; a run that was killed is reported as far as it got, and says so.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from torchcram.report import maps, plots
from torchcram.report.page import REPORT, Section, draw_sections, pretty, render_file
from torchcram.report.read_rates import read_rate_figure
from torchcram.report.records import RunRecord, load_record
from torchcram.report.story import story, tiles, unfinished_message
from torchcram.report.tables import summary_rows
from torchcram.report.wording import GLOSSARY
from torchcram.runs.files import write_text

SECTIONS = (
    Section(
        name="read_rate",
        heading="Does it learn to stop reading?",
        caption="Above: the share of steps that read the key-value memory; orange in at least one layer, "
        "grey in each layer. Below: the keys these reads scan, of those that dense attention "
        "would scan. The scale is logarithmic down to 0.1%, with a true zero. Bold lines are "
        "running medians of training batches, where the router is noisy; circles are "
        "evaluations, where it is not. The dashed line is the floor: what an oracle that knows "
        "all recurring patterns by heart still reads. The dotted line marks the sharpest fall; "
        "shading marks the phases of training.",
        draw=read_rate_figure,
    ),
    Section(
        name="accuracy",
        heading="Does it still answer?",
        caption="Fewer reads are worth something only while the answers stay right. Recurring queries "
        "can be learned by heart; novel ones can only be looked up in the context, so they show "
        "whether retrieval itself still works.",
        draw=plots.accuracy_figure,
    ),
    Section(
        name="route_map",
        heading="Where does it read?",
        caption="One sequence from left to right, each row a layer (the first at the bottom), each cell "
        "a step, its colour the memory that answered it. Marks above the cells are queries. "
        "Ideally an orange cell stands under every triangle, and nowhere else.",
        draw=maps.route_map_figure,
    ),
    Section(
        name="routes_by_slice",
        heading="Which memory answers what?",
        caption="For each kind of step, the shares answered by working memory (free), semantic memory "
        "(from parameters) and episodic memory (a read). After consolidation, recurring queries "
        "leave the orange part and novel ones stay in it.",
        draw=maps.routes_by_slice_figure,
    ),
    Section(
        name="quality",
        heading="Does it know what it knows?",
        caption="Left: how well semantic memory reproduces what a read returned, seen only where "
        "something was read. Right: the router's prediction of it, made without reading. The "
        "wider the gap between the two kinds of queries, the safer it is to skip a read.",
        draw=plots.quality_figure,
    ),
    Section(
        name="exposures",
        heading="How often must a pattern be seen?",
        caption="The share of recurring queries that still read, since routing began, against how often "
        "their pattern had been met by then. Bars are two standard errors. The dashed line is a "
        "power law fitted by likelihood, with the 95% bootstrap interval of its exponent; where "
        "an exponential or a logistic is likelier, the legend says so.",
        draw=plots.exposure_figure,
    ),
    Section(
        name="calibration",
        heading="What is guaranteed?",
        caption="One shift moves all familiarity thresholds together. Calibration chose the lowest one "
        "whose risk it could certify to stay below the tolerance (dashed). Risk is the share of "
        "answers that differ from those with a read for every token in need (or, if the run says so, "
        "that are wrong). The guarantee holds for a frozen model, on data like the calibration data.",
        draw=plots.calibration_figure,
    ),
)


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into a run directory.

    Returns:
        The path of the HTML file.

    Raises:
        ValueError: if the directory is no run, or a file of it is damaged.
    """
    record = load_record(run_dir)
    shown = draw_sections(SECTIONS, record, folder=record.directory)
    path = record.directory / REPORT
    write_text(path, _page(record, shown))
    return path


def _page(record: RunRecord, shown: list[tuple[Section, str]]) -> str:
    rows = summary_rows(record.summary or {})
    return render_file(
        "torchcram.report",
        "report.html.jinja",
        title=record.config.get("name") or record.directory.resolve().name,
        seed=record.config.get("seed"),
        unfinished=unfinished_message(record),
        story=story(record),
        tiles=tiles(record),
        figures=shown,
        groups=[(group, list(members)) for group, members in groupby(rows, key=lambda row: row.group)],
        glossary=GLOSSARY,
        details={"Configuration": pretty(record.config), "Environment": pretty(record.environment)},
    )
