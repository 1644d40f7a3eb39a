"""Make ``results.csv``, the figures and the tables of this folder's README of what ``run.py`` has finished.

python experiments/11_physionet/collect.py
"""

from __future__ import annotations

import json
from pathlib import Path

from torchcram.series.comparison.table import Bound, Lead
from torchcram.series.comparison_figures import patient_figure
from torchcram.series.comparison_page import write_comparison

HERE = Path(__file__).parent
RUNS = Path("runs") / HERE.name
GOALS = (
    Bound(figure="auroc", number=0.855, above=True, title="AUROC >= 0.855"),
    Lead(
        figure="auroc",
        peer=None,
        spreads=-1.0,
        title="AUROC not below the best neural peer by more than the paired spread",
    ),
    Bound(figure="attention_share", number=0.1, above=False, title="attention share <= 10% of dense"),
    Lead(
        figure="auroc",
        peer="transformer",
        spreads=-1.0,
        title="... at no loss: AUROC not below the dense Transformer by more than the paired spread",
    ),
    Bound(figure="seconds", number=900.0, above=False, title="training <= 15 minutes a split"),
    Bound(figure="per_second", number=1000.0, above=True, title="inference >= 1,000 stays a second"),
)


def main() -> None:
    """Write everything."""
    route_map = RUNS / "cram-map.json"
    patient = patient_figure(json.loads(route_map.read_text())) if route_map.exists() else None
    write_comparison(
        HERE,
        RUNS,
        figures=("auroc", "auprc", "brier", "accuracy"),
        tuned_on="AUROC",
        goals=GOALS,
        drawings={"patient.png": patient},
    )


if __name__ == "__main__":
    main()
