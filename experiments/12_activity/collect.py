"""Make ``results.csv``, the figures and the tables of this folder's README of what ``run.py`` has finished.

python experiments/12_activity/collect.py
"""

from __future__ import annotations

from pathlib import Path

from torchcram.comparison.table import Bound, Lead, goals_table, paired_table, read_results, results_table, tuning_table, write_csv
from torchcram.report.claim_page import between
from torchcram.report.comparison import calibration_figure, quality_figure
from torchcram.report.style import png

HERE = Path(__file__).parent
RUNS = Path("runs") / HERE.name
MARKS = "<!-- results: written by collect.py -->", "<!-- /results -->"
FIGURES = ("accuracy", "macro_f1")
GOALS = (
    Lead(figure="accuracy", peer="transformer", spreads=0.0, title="accuracy at or above the dense Transformer"),
    Lead(figure="macro_f1", peer="transformer", spreads=0.0, title="macro-F1 at or above the dense Transformer"),
    Lead(figure="accuracy", peer="seqboat", spreads=1.0, title="accuracy above SeqBoat by more than the paired spread"),
    Lead(figure="macro_f1", peer="seqboat", spreads=1.0, title="macro-F1 above SeqBoat by more than the paired spread"),
    Bound(figure="attention_share", number=0.1, above=False, title="attention share <= 10% of dense"),
)


def main() -> None:
    """Write everything."""
    results = read_results(RUNS)
    write_csv(results, HERE / "results.csv")
    drawings = {"quality.png": quality_figure(results, figure="macro_f1"), "calibration.png": calibration_figure(results)}
    for name, drawing in drawings.items():
        if drawing is not None:
            (HERE / name).write_bytes(png(drawing))
    sections = {
        "Goals": goals_table(results, GOALS),
        "Test data: mean and standard deviation over the splits": results_table(results, figures=FIGURES),
        "Paired differences": paired_table(results, figures=FIGURES),
        "Tuning (macro-F1 on the validation part of split 0)": tuning_table(RUNS),
        "Figures": "\n\n".join(f"![{name.removesuffix('.png')}]({name})" for name, drawing in drawings.items() if drawing is not None) or "Not run yet.",
    }
    readme = HERE / "README.md"
    readme.write_text(between(readme.read_text(), marks=MARKS, content="\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items())))


if __name__ == "__main__":
    main()
