"""``torchcram judge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def judge_command(
    model: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a retrofitted model.")],
    texts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Text that nothing was fitted to: files, or folders of text files; each file is a document.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens of windows. Default: what the model takes, at most 2,048."),
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="Windows of text that are judged, at most.")] = 8,
    papers: Annotated[int, typer.Option(min=1, help="Contexts of each retrieval task.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Sequences whose decoding is timed.")] = 1,
    speed: Annotated[bool, typer.Option(help="Time decoding and prefill.")] = True,
    rivals: Annotated[
        bool, typer.Option("--rivals", help="Judge rivals and ablations on the same text as well.")
    ] = False,
    fit: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text on which prices are found and from which rivals learn; may be repeated. Default: a "
            "part of TEXT, which is then not judged."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for judged.json; run again to go on. Default: DIR.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of windows and of the exam.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Judge a retrofitted model against the untouched one: quality by position, retrieval with the worst task
    first, speed and memory.
    """
    from torchcram.pretrained.judging.verdict import judge
    from torchcram.pretrained.loading import load_model
    from torchcram.pretrained.texts import load_texts
    from torchcram.runs.files import require_place

    place = Path(model) if out is None else out
    require_place(place)
    documents, learned = (load_texts(each) if each else [] for each in (texts, fit))
    loaded, tokenizer = load_model(model, dtype=dtype)
    place.mkdir(parents=True, exist_ok=True)
    judge(
        loaded,
        tokenizer,
        documents,
        context=context,
        windows=windows,
        papers=papers,
        batch=batch,
        speed=speed,
        rivals=rivals,
        fit_texts=learned,
        out=place,
        seed=seed,
        show_progress=not quiet,
    ).show()
