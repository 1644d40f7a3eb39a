"""Make ``results.csv``, the figures and the tables of this folder's README of what ``run.py`` has finished.

python experiments/11_physionet/collect.py
"""

from __future__ import annotations

import json
from pathlib import Path

from torchcram.comparison.table import Bound, Lead, goals_table, paired_table, read_results, results_table, tuning_table, write_csv
from torchcram.report.claim_page import between
from torchcram.report.comparison import calibration_figure, patient_figure, quality_figure
from torchcram.report.style import png

HERE = Path(__file__).parent
RUNS = Path("runs") / HERE.name
MARKS = "<!-- results: written by collect.py -->", "<!-- /results -->"
FIGURES = ("auroc", "auprc", "brier", "accuracy")
GOALS = (
    Bound(figure="auroc", number=0.855, above=True, title="AUROC >= 0.855"),
    Lead(figure="auroc", peer=None, spreads=-1.0, title="AUROC not below the best neural peer by more than the paired spread"),
    Bound(figure="attention_share", number=0.1, above=False, title="attention share <= 10% of dense"),
    Lead(figure="auroc", peer="transformer", spreads=-1.0, title="... at no loss: AUROC not below the dense Transformer by more than the paired spread"),
    Bound(figure="seconds", number=900.0, above=False, title="training <= 15 minutes a split"),
    Bound(figure="per_second", number=1000.0, above=True, title="inference >= 1,000 stays a second"),
)


def main() -> None:
    """Write everything."""
    results = read_results(RUNS)
    write_csv(results, HERE / "results.csv")
    drawings = {"quality.png": quality_figure(results, figure="auroc"), "calibration.png": calibration_figure(results)}
    route_map = RUNS / "cram-map.json"
    drawings["patient.png"] = patient_figure(json.loads(route_map.read_text())) if route_map.exists() else None
    for name, drawing in drawings.items():
        if drawing is not None:
            (HERE / name).write_bytes(png(drawing))
    sections = {
        "Goals": goals_table(results, GOALS),
        "Test data: mean and standard deviation over the splits": results_table(results, figures=FIGURES),
        "Paired differences": paired_table(results, figures=FIGURES),
        "Tuning (AUROC on the validation part of split 0)": tuning_table(RUNS),
        "Figures": "\n\n".join(f"![{name.removesuffix('.png')}]({name})" for name, drawing in drawings.items() if drawing is not None) or "Not run yet.",
    }
    readme = HERE / "README.md"
    readme.write_text(between(readme.read_text(), marks=MARKS, content="\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items())))


if __name__ == "__main__":
    main()
