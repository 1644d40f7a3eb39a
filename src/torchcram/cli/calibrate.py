"""``torchcram calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchcram.cli.options import show_json


def calibrate_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    tolerance: Annotated[
        list[float] | None, typer.Option(help="Risk tolerance; may be repeated. Default: 0.01 and 0.05.")
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="Calibration sequences of each split.")] = 200,
    test_sequences: Annotated[int, typer.Option(min=1, help="Test sequences of each split.")] = 400,
    splits: Annotated[int, typer.Option(min=1, help="Random splits.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the sequences and of the splits.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result there, too.")] = None,
) -> None:
    """Test the conformal guarantee of a finished run over random splits, and print the result as JSON."""
    from dataclasses import asdict

    import torch

    from torchcram.calibration import split_study
    from torchcram.runs.files import require_writable
    from torchcram.training.evaluate import fresh_risk_curve
    from torchcram.training.loop import load_run

    require_writable(json_file)
    tolerances = tolerance or [0.01, 0.05]
    for value in tolerances:
        if not 0 < value < 1:
            raise ValueError(f"--tolerance {value} must lie strictly between 0 and 1")
    loaded = load_run(run)
    curve = fresh_risk_curve(
        loaded.model,
        loaded.task,
        sequences=sequences + test_sequences,
        seed=seed,
        step=loaded.config.training.steps,
    )
    studies = [
        split_study(
            curve,
            calibration_sequences=sequences,
            risk_tolerance=value,
            splits=splits,
            generator=torch.Generator().manual_seed(seed),
        )
        for value in tolerances
    ]
    show_json([asdict(study) | {"holds": study.holds} for study in studies], json_file)
