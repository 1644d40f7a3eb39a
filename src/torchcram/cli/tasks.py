"""``torchcram tasks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchcram.cli.options import changed

# Where a sequence is drawn if nothing else is said.
PICTURE = Path("srcd.png")


def tasks_command(
    task: Annotated[str, typer.Argument(metavar="TASK", help="srcd")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Change a field of the task, e.g. --set length=256."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sequences.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to draw one sequence; srcd.png, if there is none yet, if not given."),
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="Sequences for the statistics.")] = 200,
) -> None:
    """Draw one SRCD sequence as a picture and print the statistics of many against the specification."""
    import math

    import torch
    from rich.console import Console

    from torchcram.report.drawing import draw_sequence
    from torchcram.report.tables import print_statistics
    from torchcram.runs.files import require_writable
    from torchcram.strict import require_choice
    from torchcram.tasks.srcd import SRCD
    from torchcram.tasks.srcd_config import SRCDConfig
    from torchcram.tasks.srcd_oracle import statistics

    require_choice("task", task, ("srcd",))
    if out is None and PICTURE.exists():
        raise ValueError(f"there is a {PICTURE} already: say --out {PICTURE} to draw over it")
    picture = out or PICTURE
    require_writable(picture)
    config = changed(SRCDConfig(), set_)
    generator = torch.Generator().manual_seed(seed)
    batch = SRCD(config).batch(sequences, generator=generator)
    draw_sequence(batch).savefig(picture, dpi=150)
    rows = {
        name: (measured, None if math.isnan(specified) else specified)
        for name, measured, specified in statistics(batch, config=config)
    }
    print_statistics(rows, Console())
    typer.echo(str(picture))
