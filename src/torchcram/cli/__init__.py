"""The command line: train, evaluate, calibrate, report, tasks, bench, reproduce, analyze, retrofit, judge.

Each command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from torchcram.cli.analyze import analyze_command
from torchcram.cli.bench import bench_command
from torchcram.cli.calibrate import calibrate_command
from torchcram.cli.evaluate import evaluate_command
from torchcram.cli.judge import judge_command
from torchcram.cli.report import report_command
from torchcram.cli.reproduce import reproduce_command
from torchcram.cli.retrofit import retrofit_command
from torchcram.cli.tasks import tasks_command
from torchcram.cli.train import train_command
from torchcram.runs.failure import ending_in_one_line

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "calibrate": calibrate_command,
    "report": report_command,
    "tasks": tasks_command,
    "bench": bench_command,
    "reproduce": reproduce_command,
    "analyze": analyze_command,
    "retrofit": retrofit_command,
    "judge": judge_command,
}


def make_app() -> typer.Typer:
    """Return the command line, for :mod:`typer` to run."""
    commands = typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, callback=options
    )
    for name, command in COMMANDS.items():
        commands.command(name)(command)
    return commands


def show_version(wanted: bool) -> bool:
    """Print the version and end, if it is wanted."""
    if wanted:
        typer.echo(f"torchcram {version('torchcram')}")
        raise typer.Exit
    return wanted


def options(
    wanted: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Sequence models that learn to stop paying for attention."""


app = make_app()


def main() -> None:
    """Run the command line; what the user can mend is one line on stderr and exit status 2, an
    interruption is 130.
    """
    # The name of a file may be no text, and a terminal may know ASCII alone: neither fails after the work.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    ending_in_one_line(app)
