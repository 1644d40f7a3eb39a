"""``torchcram analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchcram.cli.options import changed


def analyze_command(
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
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens to fit on; an eighth of it to select and to test.")
    ] = 200_000,
    context: Annotated[int, typer.Option(min=2, help="Longest window.")] = 1024,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the analysis, also to resume it; runs/analyze-MODEL if not given."),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB", help="Folders in MODEL to analyse one after the other, e.g. 'checkpoint-*'."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a setting, e.g. --set judge_tokens=4096."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Measure how predictable the attention of a pretrained model is, and what replacing it costs.

    Run it again to resume it.
    """
    from torchcram.pretrained.analysis.page import write_analysis_page
    from torchcram.pretrained.analysis.settings import AnalysisConfig
    from torchcram.pretrained.store import require_analysis_or_nothing
    from torchcram.pretrained.texts import load_texts
    from torchcram.runs.files import require_place

    settings = changed(AnalysisConfig.parse({"tokens": tokens, "context": context, "seed": seed}), set_)
    name = Path(model).name.removesuffix(".gguf")
    place = out or Path("runs") / f"analyze-{name}"
    if checkpoints is None:
        require_analysis_or_nothing(place)
    require_place(place)
    documents = load_texts(texts)
    if checkpoints is not None:
        from torchcram.pretrained.analysis.checkpoints import analyze_series
        from torchcram.pretrained.analysis.checkpoints_page import write_series_page

        analyze_series(
            Path(model),
            checkpoints,
            documents,
            settings=settings,
            out=place,
            dtype=dtype,
            show_progress=not quiet,
        )
        typer.echo(str(write_series_page(place)))
        return
    from torchcram.pretrained.analysis.analyze import analyze
    from torchcram.pretrained.loading import load_model

    loaded, tokenizer = load_model(model, dtype=dtype)
    analyze(loaded, tokenizer, documents, settings=settings, out=place, name=name, show_progress=not quiet)
    typer.echo(str(write_analysis_page(place)))
