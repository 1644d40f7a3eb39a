"""``torchcram evaluate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from torchcram.cli.options import parse_assignment, show_json


def evaluate_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    queries: Annotated[
        int,
        typer.Option(min=1, help="Least number of scored queries (sequences, where a task has no queries)."),
    ] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the fresh sequences.")] = 1,
    reads: Annotated[
        str, typer.Option(help="routed: obey the router; all: force every read; none: forbid reads.")
    ] = "routed",
    shift: Annotated[
        float, typer.Option(help="Logits added to the familiarity thresholds; lower skips more.")
    ] = 0.0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field of the task, e.g. --set override=0.2: zero-shot.",
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the record there, too.")] = None,
) -> None:
    """Judge a finished run on fresh sequences and print the record as JSON."""
    from torchcram.runs.files import require_writable
    from torchcram.training.loop import evaluate_run, load_run

    require_writable(json_file)
    if not math.isfinite(shift):
        raise ValueError(f"--shift {shift} is no number")
    changes = dict(parse_assignment(assignment) for assignment in set_ or ())
    judged = evaluate_run(
        load_run(run), queries=queries, seed=seed, reads=reads, shift=shift, task_changes=changes
    )
    show_json(judged, json_file)
