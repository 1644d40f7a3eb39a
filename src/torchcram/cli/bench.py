"""``torchcram bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

QUESTIONS = (
    "routed-attention, routed-attention-backward, scan, train-step, decode, generate; all of them if none is "
    "named."
)


def bench_command(
    questions: Annotated[list[str] | None, typer.Argument(metavar="[QUESTION]...", help=QUESTIONS)] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write the measurements there as they come; table and figure go beside it."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=2, help="Turns of ours and of the peer.")] = 7,
    longest: Annotated[int | None, typer.Option(min=1, help="Leave out longer sequences.")] = None,
) -> None:
    """Time parts of the library against named peers, in turns, in one run."""
    import torch
    from rich.console import Console

    from torchcram.bench.page import write_bench_page
    from torchcram.bench.run import ask, machine
    from torchcram.bench.setting import Setting
    from torchcram.bench.table import bench_line, print_bench
    from torchcram.strict import require_choice

    if require_choice("device", device, ("cpu", "cuda")) == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda': there is no CUDA GPU here; use cpu")
    console = Console()
    console.print(
        ", ".join(f"{name} {value}" for name, value in machine().items() if value is not None), style="dim"
    )
    setting = Setting(device=torch.device(device), rounds=rounds, longest=longest)
    found = ask(
        questions or [],
        setting=setting,
        file=json_file,
        show=lambda measurement: console.print(bench_line(measurement.record())),
    )
    print_bench(found, console)
    if json_file is not None:
        typer.echo(str(write_bench_page(json_file)))
