"""``torchcram calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchcram.cli.options import show_json


def calibrate_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    tolerance: Annotated[
        list[float] | None, typer.Option(help="Risk tolerance; may be repeated. Default: the run's own.")
    ] = None,
    sequences: Annotated[
        int | None, typer.Option(min=1, help="Calibration sequences of each split. Default: the run's own.")
    ] = None,
    test_sequences: Annotated[int, typer.Option(min=1, help="Test sequences of each split.")] = 400,
    splits: Annotated[int, typer.Option(min=1, help="Random splits.")] = 200,
    reference: Annotated[
        str | None,
        typer.Option(
            help="cautious: against the model with a read for every token in need; labels: against the "
            "right answers. Default: the run's own."
        ),
    ] = None,
    bound: Annotated[
        str | None,
        typer.Option(help="mean: in expectation; betting: with confidence. Default: the run's own."),
    ] = None,
    confidence: Annotated[float | None, typer.Option(help="Of the bound betting.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sequences and of the splits.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result there, too.")] = None,
) -> None:
    """Test the conformal guarantee of a finished run over random splits, and print the result as JSON.

    It says whether every split certified a threshold that skips reads, the realised risk, the share of reads
    that were skipped, and the read rate over the task's floor.
    """
    from dataclasses import asdict

    from torchcram.runs.files import require_writable
    from torchcram.training.loop import load_run, study_run

    require_writable(json_file)
    for value in tolerance or []:
        if not 0 < value < 1:
            raise ValueError(f"--tolerance {value} must lie strictly between 0 and 1")
    studies = study_run(
        load_run(run),
        tolerances=tolerance or [],
        sequences=sequences,
        test_sequences=test_sequences,
        splits=splits,
        reference=reference,
        bound=bound,
        confidence=confidence,
        seed=seed,
    )
    show_json([asdict(study) | {"holds": study.holds} for study in studies], json_file)
