"""Make ``results.csv``, the figures and the tables of this folder's README of what ``run.py`` has finished.

python experiments/12_activity/collect.py
"""

from __future__ import annotations

from pathlib import Path

from torchcram.series.comparison.table import Bound, Lead
from torchcram.series.comparison_page import write_comparison

HERE = Path(__file__).parent
RUNS = Path("runs") / HERE.name
GOALS = (
    Lead(
        figure="accuracy", peer="transformer", spreads=0.0, title="accuracy at or above the dense Transformer"
    ),
    Lead(
        figure="macro_f1", peer="transformer", spreads=0.0, title="macro-F1 at or above the dense Transformer"
    ),
    Lead(
        figure="accuracy",
        peer="seqboat",
        spreads=1.0,
        title="accuracy above SeqBoat by more than the paired spread",
    ),
    Lead(
        figure="macro_f1",
        peer="seqboat",
        spreads=1.0,
        title="macro-F1 above SeqBoat by more than the paired spread",
    ),
    Bound(figure="attention_share", number=0.1, above=False, title="attention share <= 10% of dense"),
)


def main() -> None:
    """Write everything."""
    write_comparison(HERE, RUNS, figures=("macro_f1", "accuracy"), tuned_on="macro-F1", goals=GOALS)


if __name__ == "__main__":
    main()
