"""``torchcram train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchcram.cli.options import changed


def train_command(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A preset (mini, demo, full) or a YAML file.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=VALUE",
            help="Change a field, e.g. --set training.steps=500. May be repeated.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, data and noise.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME-seedS if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    start: Annotated[
        Path | None, typer.Option(help="Folder of the finished run that start_from names.")
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="NAME",
            help="Tell a tracker the metrics: tensorboard, wandb, mlflow, trackio, ... May be repeated.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a model, evaluate it on fresh sequences, and print the summary."""
    from accelerate import PartialState
    from rich.console import Console

    from torchcram.report.tables import print_summary
    from torchcram.training.distributed import leave_group
    from torchcram.training.loop import train
    from torchcram.training.presets import resolve

    chosen = changed(resolve(config), set_)
    if seed is not None:
        chosen = chosen.updated("seed", seed)
    run = train(chosen, out=out, resume=resume, start=start, trackers=track or (), show_progress=not quiet)
    if PartialState().is_main_process:
        print_summary(run.summary, Console())
        typer.echo(f"{run.path / 'summary.json'}")
    leave_group()
