"""``torchcram report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report_command(run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]) -> None:
    """Write one self-contained HTML file, and its figures as PNG."""
    from torchcram.report.html import write_report

    typer.echo(str(write_report(run)))
