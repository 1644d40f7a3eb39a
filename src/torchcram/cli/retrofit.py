"""``torchcram retrofit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchcram.cli.options import changed


def retrofit_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A Hub id, a folder, or a GGUF file of a causal language model."
        ),
    ],
    texts: Annotated[
        list[Path],
        typer.Argument(
            metavar="TEXT...", help="Text files, or folders of text files; each file is a document."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to save to; run again to resume.")],
    reads: Annotated[
        float, typer.Option(min=0, max=1, help="Share of token x layer that may read the context.")
    ] = 0.25,
    risk: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Certify that at most this share of next tokens differs, instead of --reads."
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0, help="That it may take; more than 10 buy a distillation.")
    ] = 10.0,
    context: Annotated[int, typer.Option(min=2, help="Longest window, in tokens.")] = 1024,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a setting, e.g. --set window=128."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of windows, labels and first weights.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Give a pretrained language model the three memories: it reads its cache only where it must."""
    from torchcram.pretrained.loading import load_model
    from torchcram.pretrained.retrofit.life import retrofit
    from torchcram.pretrained.retrofit.processes import processes_here
    from torchcram.pretrained.retrofit.settings import RetrofitSettings
    from torchcram.pretrained.texts import load_texts
    from torchcram.runs.files import require_place
    from torchcram.training.distributed import leave_group

    settings = changed(RetrofitSettings(), set_)
    require_place(out)
    documents = load_texts(texts)
    processes = processes_here()
    loaded, tokenizer = load_model(model, dtype=dtype)
    if processes.count > 1:
        loaded.to(processes.device)
    made = retrofit(
        loaded,
        tokenizer,
        documents,
        reads=reads,
        risk=risk,
        minutes=minutes,
        context=context,
        settings=settings,
        out=out,
        seed=seed,
        show_progress=not quiet,
    )
    if processes.first:
        typer.echo(str(made.folder))
    del loaded, made
    leave_group()
