"""``torchcram reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reproduce_command(
    claim: Annotated[
        str,
        typer.Argument(
            metavar="CLAIM", help="A claim, e.g. 02_transition; all: 01 to 08. Their tuning is 00_tuning."
        ),
    ],
    scale: Annotated[str, typer.Option(help="mini, demo or full.")] = "mini",
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N - 1 of every method.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Train this method alone; may be repeated.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at once, one thread each; as many as there are cores if not given."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what there is and what is to do; train and write nothing.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Train again what was trained with other code.")
    ] = False,
    executor: Annotated[
        str, typer.Option(help="local: processes of this machine; ray: a Ray cluster (extra ray).")
    ] = "local",
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/reproduce"),
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the claims' results; a README.md in it gets their table, if it has its marks."
        ),
    ] = Path("experiments"),
) -> None:
    """Train what a claim still needs, and write its table, figure and status."""
    from rich.console import Console

    from torchcram.reproduce.reproduction import look_up
    from torchcram.runs.files import require_place
    from torchcram.strict import require_choice, require_positive

    for folder in (runs, out):
        require_place(folder)
    require_positive(jobs=1 if jobs is None else jobs)
    require_choice("executor", executor, ("local", "ray"))
    reproduction = look_up(
        claim, scale=scale, seeds=seeds, only=only or (), refresh=refresh, runs=runs, experiments=out
    )
    if dry_run:
        reproduction.show(Console())
    else:
        reproduction.carry_out(executor=executor, workers=jobs, say=typer.echo)
