"""The folder of a comparison on irregular series, written from what its jobs have left: ``results.csv``,
figures, and the tables of its README.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from torchcram.report.page import between
from torchcram.report.style import png
from torchcram.series.comparison.table import (
    Bound,
    Lead,
    forced_table,
    goals_table,
    load_results,
    paired_table,
    results_table,
    tuning_table,
    write_csv,
)
from torchcram.series.comparison_figures import calibration_figure, quality_figure

MARKS = "<!-- results: written by collect.py -->", "<!-- /results -->"


def write_comparison(
    folder: Path,
    runs: Path,
    *,
    figures: Sequence[str],
    tuned_on: str,
    goals: Sequence[Bound | Lead],
    drawings: Mapping[str, Figure | None] | None = None,
) -> None:
    """Write everything of an experiment that its finished jobs can tell; what was not run is named as not run
    yet.

    Args:
        folder: of the experiment, with a README that has the marks.
        runs: folder of its jobs.
        figures: scores of the tables, the first of them drawn against the attention share.
        tuned_on: title of the score that the tuning looked at.
        goals: what is to be reached.
        drawings: further figures by file name; None for one that cannot be drawn yet.

    Raises:
        ValueError: if the README lacks the marks.
    """
    results = load_results(runs)
    write_csv(results, folder / "results.csv")
    shown = {
        "quality.png": quality_figure(results, figure=figures[0]),
        "calibration.png": calibration_figure(results),
        **(drawings or {}),
    }
    made = {name: drawing for name, drawing in shown.items() if drawing is not None}
    for name, drawing in made.items():
        (folder / name).write_bytes(png(drawing))
    sections = {
        "Goals": goals_table(results, goals),
        "Test data: mean and standard deviation over the splits": results_table(results, figures=figures),
        "Paired differences": paired_table(results, figures=figures),
        "What reading adds: the same weights with all reads forced": forced_table(results, figures=figures),
        f"Tuning ({tuned_on} on the validation part of split 0)": tuning_table(runs),
        "Figures": "\n\n".join(f"![{name.removesuffix('.png')}]({name})" for name in made) or "Not run yet.",
    }
    readme = folder / "README.md"
    readme.write_text(
        between(
            readme.read_text(),
            marks=MARKS,
            content="\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items()),
        )
    )
