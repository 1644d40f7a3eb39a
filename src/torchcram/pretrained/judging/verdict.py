"""A retrofitted model before the judge: quality by position, retrieval, speed and memory, rivals.

Each part is written as soon as it is known. Asked again for the same, the judge takes up what is written.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.judging.by_position import Stretch
from torchcram.pretrained.judging.frontier import Result
from torchcram.pretrained.judging.haystack import context_of
from torchcram.pretrained.judging.kept import Kept
from torchcram.pretrained.judging.material import deal
from torchcram.pretrained.judging.parts import Judging
from torchcram.pretrained.judging.retrieval import TASKS, Score
from torchcram.pretrained.judging.speed import Speed
from torchcram.pretrained.judging.tables import (
    print_results,
    print_scores,
    print_speed,
    print_stretches,
)
from torchcram.pretrained.retrofit.install import retrofit_of
from torchcram.pretrained.sites import at_rest
from torchcram.strict import require_positive

# The longest context that is judged unless another one is asked for.
LONGEST = 2048


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge says of a model.

    Attributes:
        prices: of a read, in nats, for each share of reads; empty without text.
        text: quality by position; empty without text.
        retrieval: scores of the exam, worst task first.
        speed: decoding and memory; None if not asked for.
        rivals: all contenders at all budgets; empty if not asked for.
    """

    prices: dict[float, float]
    text: list[Stretch]
    retrieval: list[Score]
    speed: Speed | None
    rivals: list[Result]

    def show(self, console: Console | None = None) -> None:
        """Print it as tables; on stdout if no console is given."""
        console = console or Console()
        if self.text:
            print_stretches(self.text, console)
        print_scores(self.retrieval, console)
        if self.speed is not None:
            print_speed(self.speed, console)
        if self.rivals:
            print_results(self.rivals, console)


def judge(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str] = (),
    *,
    context: int | None = None,
    windows: int = 8,
    papers: int = 5,
    batch: int = 1,
    speed: bool = True,
    rivals: bool = False,
    fit_texts: Sequence[str] = (),
    out: str | Path | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> Verdict:
    """Judge a retrofitted model against the untouched one that it was made from.

    Args:
        model: retrofitted.
        tokenizer: its own.
        texts: documents that nothing was fitted to; without any, quality by position is left out, and the
            exam is sat as saved and without reads alone.
        context: tokens of windows and contexts; what the model takes, and at most 2,048, if None.
        windows: of text that are judged, at most.
        papers: contexts of each task of the exam.
        batch: sequences whose decoding is timed.
        speed: whether to time it.
        rivals: whether to judge rivals and ablations on the same text as well.
        fit_texts: documents on which prices are found and from which rivals learn; a part of ``texts``, which
            is then not judged, if there are none.
        out: folder in which ``judged.json`` is kept, also to go on with; None keeps nothing.
        seed: of windows and papers.
        show_progress: whether to show it on stderr.

    Raises:
        ValueError: if the model is not retrofitted, the text is too short, or the context holds nothing
            remote, or not the facts of the exam.
    """
    require_positive(windows=windows, papers=papers, batch=batch)
    settings = retrofit_of(model).settings
    tokens = context_for(model) if context is None else context
    if tokens <= settings.held:
        raise ValueError(
            f"context {tokens} holds nothing beyond the near tokens ({settings.held}): use a longer context"
        )
    if (rivals or fit_texts) and not texts:
        raise ValueError("rivals are judged on text, and there is none: name some")
    for task in TASKS.values():
        draw = random.Random(0)
        context_of(task(draw), tokenizer, tokens=tokens, draw=draw)
    text = deal(model, tokenizer, texts, fit_texts, tokens=tokens, windows=windows, seed=seed)
    with at_rest(model), AnalysisProgress(show=show_progress) as progress, torch.no_grad():
        kept = Kept(None if out is None else Path(out), model, {"context": tokens, "seed": seed})
        judging = Judging(model, tokenizer, kept, progress, context=tokens, seed=seed)
        price_of = {} if text is None else judging.prices(text)
        return Verdict(
            prices=price_of,
            text=[] if text is None else judging.text(text, price_of),
            retrieval=judging.retrieval(papers, price_of),
            speed=judging.speed(batch) if speed else None,
            rivals=judging.rivals(text) if rivals and text is not None else [],
        )


def context_for(model: Any) -> int:
    """Return the context that a model takes, as far as it is judged."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return LONGEST if most is None else min(int(most), LONGEST)
