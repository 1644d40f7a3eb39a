"""A retrofitted model before the judge: quality by position, retrieval, speed and memory.

Each part is written as soon as it is known. Asked again for the same, the judge takes up what is written.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch import Tensor

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.judging import retrieval
from torchcram.pretrained.judging.by_position import SHARES, Stretch, judge_by_position, prices, ways_of
from torchcram.pretrained.judging.exam import Paper
from torchcram.pretrained.judging.frontier import Result, compare, frontier_figure
from torchcram.pretrained.judging.haystack import context_of
from torchcram.pretrained.judging.retrieval import Score, examine
from torchcram.pretrained.judging.speed import Speed, measure_speed
from torchcram.pretrained.judging.tables import (
    print_results,
    print_scores,
    print_speed,
    print_stretches,
)
from torchcram.pretrained.retrofit.install import retrofit_of
from torchcram.pretrained.retrofit.router_fit import ROUNDS
from torchcram.pretrained.retrofit.saving import base_digest, memory_state
from torchcram.pretrained.rivals.contender import Contender
from torchcram.pretrained.rivals.table import CONTENDERS
from torchcram.pretrained.sites import at_rest, vocabulary_size
from torchcram.pretrained.texts import Corpus, Split, make_corpus
from torchcram.report.style import png
from torchcram.runs.files import draft_of, read_json, write_json
from torchcram.runs.tensor_file import checksum
from torchcram.strict import require_positive

FILE, PICTURE = "judged.json", "frontier.png"
# The longest context that is judged unless another one is asked for.
LONGEST = 2048
# Windows on which prices are found, and from which rivals learn.
SELECT, FIT = 2, 8
PartT = TypeVar("PartT")


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


@dataclass(frozen=True, kw_only=True)
class _Text:
    """Windows that are judged, on which budgets are set, and from which rivals learn; and a digest of all."""

    test: list[Tensor]
    select: list[Tensor]
    fit: list[Tensor]
    digest: str


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
    if tokens <= settings.sinks + settings.window:
        raise ValueError(
            f"context {tokens} holds nothing beyond the near tokens ({settings.sinks} + {settings.window}): "
            "use a longer context"
        )
    if (rivals or fit_texts) and not texts:
        raise ValueError("rivals are judged on text, and there is none: name some")
    for task in retrieval.TASKS.values():
        draw = random.Random(0)
        context_of(task(draw), tokenizer, tokens=tokens, draw=draw)
    text = _text(model, tokenizer, texts, fit_texts, tokens=tokens, windows=windows, seed=seed)
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


def _text(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    fit_texts: Sequence[str],
    *,
    tokens: int,
    windows: int,
    seed: int,
) -> _Text | None:
    """Deal out the text; what is judged never sets a budget and teaches no rival."""
    if not texts:
        return None
    device = model.get_input_embeddings().weight.device

    def corpus(some: Sequence[str]) -> Corpus:
        return make_corpus(
            some,
            tokenizer,
            tokens=8 * windows * tokens,
            context=tokens,
            vocabulary=vocabulary_size(model),
            seed=seed,
        )

    def dealt(some: Corpus, *splits: Split) -> list[Tensor]:
        return [window.ids.to(device) for split in splits for window in some.windows[split]]

    judged = corpus(texts)
    other = corpus(fit_texts) if fit_texts else judged
    test = dealt(judged, "test", "select", "fit") if fit_texts else dealt(judged, "test")
    return _Text(
        test=test[:windows],
        select=dealt(other, "select")[:SELECT],
        fit=dealt(other, "fit")[:FIT],
        digest=f"{judged.digest} {other.digest} {windows}",
    )


class Judging:
    """The parts of a judgement.

    Args:
        model: retrofitted, at rest.
        tokenizer: its own.
        kept: what is there already.
        progress: told of each part.
        context: tokens of windows and contexts.
        seed: of the exam.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        kept: Kept,
        progress: AnalysisProgress,
        *,
        context: int,
        seed: int,
    ):
        self.model, self.tokenizer, self.kept, self.progress = model, tokenizer, kept, progress
        self.context, self.seed = context, seed

    def prices(self, text: _Text) -> dict[float, float]:
        """Return the price of a read for each share of reads."""

        def work() -> list[dict[str, float]]:
            advance = self.progress.stage("prices", total=ROUNDS * len(SHARES) * sum(map(len, text.select)))
            found = prices(self.model, text.select, advance=advance)
            return [{"share": share, "price": price} for share, price in found.items()]

        rows = self.kept.part("prices", {"text": text.digest}, work)
        return {row["share"]: row["price"] for row in rows}

    def text(self, text: _Text, price_of: Mapping[float, float]) -> list[Stretch]:
        """Return quality by position."""

        def work() -> list[dict[str, Any]]:
            advance = self.progress.stage("text", total=sum(map(len, text.test)))
            ways = ways_of(self.model, price_of)
            return [asdict(each) for each in judge_by_position(self.model, text.test, ways, advance=advance)]

        return [Stretch(**row) for row in self.kept.part("text", {"text": text.digest}, work)]

    def retrieval(self, papers: int, price_of: Mapping[float, float]) -> list[Score]:
        """Return the scores of the exam."""

        def work() -> list[dict[str, Any]]:
            found = examine(
                self.model,
                self.tokenizer,
                ways_of(self.model, price_of),
                papers=papers,
                context=self.context,
                draw=random.Random(self.seed),
                advance=self.progress.stage("retrieval", total=len(retrieval.TASKS) * papers * self.context),
            )
            return [asdict(each) for each in found]

        asked = {"papers": papers, "prices": list(price_of.values())}
        return [Score(**row) for row in self.kept.part("retrieval", asked, work)]

    def speed(self, batch: int) -> Speed:
        """Return speed and memory."""

        def work() -> dict[str, Any]:
            self.progress.stage("speed", total=1, unit="measurement")
            draw, empty = random.Random(self.seed), Paper(facts=(), talks=())
            rows = [context_of(empty, self.tokenizer, tokens=self.context, draw=draw) for _ in range(batch)]
            device = self.model.get_input_embeddings().weight.device
            return asdict(measure_speed(self.model, torch.stack(rows).to(device)))

        return Speed(**self.kept.part("speed", {"batch": batch}, work))

    def rivals(self, text: _Text) -> list[Result]:
        """Return all contenders at all budgets; beside the file their figure is drawn."""
        results: list[Result] = []
        for make in CONTENDERS:
            rows = self.kept.part(
                f"rivals: {make().name}", {"text": text.digest}, self._contending(text, make)
            )
            results += [Result(**row) for row in rows]
        if self.kept.file is not None:
            picture = self.kept.file.with_name(PICTURE)
            draft = draft_of(picture)
            draft.write_bytes(png(frontier_figure(results)))
            draft.replace(picture)
        return results

    def _contending(self, text: _Text, make: Callable[[], Contender]) -> Callable[[], list[dict[str, Any]]]:
        """Return what judges one contender."""

        def staged(name: str, total: int) -> Callable[[int], None]:
            return self.progress.stage(f"{make().name}: {name}", total=total, unit="parts")

        def work() -> list[dict[str, Any]]:
            found = compare(
                self.model,
                fit=text.fit,
                select=text.select,
                test=text.test,
                contenders=[make],
                progress=staged,
            )
            return [asdict(each) for each in found]

        return work


def context_for(model: Any) -> int:
    """Return the context that a model takes, as far as it is judged."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return LONGEST if most is None else min(int(most), LONGEST)


class Kept:
    """The parts of a judgement on disk, beside what else the file says.

    Args:
        folder: that holds the file; None for none.
        model: retrofitted; a part holds for its memories and its price.
        common: what all parts depend on.
    """

    def __init__(self, folder: Path | None, model: Any, common: Mapping[str, Any]):
        self.file = None if folder is None else folder / FILE
        retrofit = retrofit_of(model)
        base = retrofit.base.get("digest") or base_digest(model)
        told = (
            type(model).__name__,
            base,
            checksum(memory_state(model)),
            retrofit.settings.model_dump_json(),
        )
        digest = hashlib.sha256(" ".join(told).encode())
        self.common = {"model": digest.hexdigest(), **common}

    def part(self, name: str, asked: Mapping[str, Any], work: Callable[[], PartT]) -> PartT:
        """Return a part that is there already, or work it out and write it."""
        identity = {**self.common, **asked}
        there = self._there()
        if there.get(name, {}).get("of") == identity:
            result: PartT = there[name]["found"]
            return result
        found = work()
        if self.file is not None:
            write_json(self.file, {**self._there(), name: {"of": identity, "found": found}})
        return found

    def _there(self) -> dict[str, Any]:
        if self.file is None or not self.file.is_file():
            return {}
        return read_json(self.file, mend="delete it, and judge again")
