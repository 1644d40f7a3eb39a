"""The parts of a judgement, one after the other: prices, text, retrieval, speed, rivals."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.judging.by_position import SHARES, Stretch, judge_by_position, prices, ways_of
from torchcram.pretrained.judging.exam import Paper
from torchcram.pretrained.judging.frontier import Result, compare, frontier_figure
from torchcram.pretrained.judging.haystack import context_of
from torchcram.pretrained.judging.kept import Kept
from torchcram.pretrained.judging.material import Material
from torchcram.pretrained.judging.retrieval import TASKS, Score, examine
from torchcram.pretrained.judging.speed import Speed, measure_speed
from torchcram.pretrained.retrofit.router_fit import ROUNDS
from torchcram.pretrained.rivals.contender import Contender
from torchcram.pretrained.rivals.table import CONTENDERS
from torchcram.report.style import png
from torchcram.runs.files import draft_of

PICTURE = "frontier.png"


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

    def prices(self, text: Material) -> dict[float, float]:
        """Return the price of a read for each share of reads."""

        def work() -> list[dict[str, float]]:
            advance = self.progress.stage("prices", total=ROUNDS * len(SHARES) * sum(map(len, text.select)))
            price_of_share = prices(self.model, text.select, advance=advance)
            return [{"share": share, "price": price} for share, price in price_of_share.items()]

        rows = self.kept.part("prices", {"text": text.digest}, work)
        return {row["share"]: row["price"] for row in rows}

    def text(self, text: Material, price_of: Mapping[float, float]) -> list[Stretch]:
        """Return quality by position."""

        def work() -> list[dict[str, Any]]:
            advance = self.progress.stage("text", total=sum(map(len, text.test)))
            ways = ways_of(self.model, price_of)
            return [asdict(each) for each in judge_by_position(self.model, text.test, ways, advance=advance)]

        return [Stretch(**row) for row in self.kept.part("text", {"text": text.digest}, work)]

    def retrieval(self, papers: int, price_of: Mapping[float, float]) -> list[Score]:
        """Return the scores of the exam."""

        def work() -> list[dict[str, Any]]:
            scores = examine(
                self.model,
                self.tokenizer,
                ways_of(self.model, price_of),
                papers=papers,
                context=self.context,
                draw=random.Random(self.seed),
                advance=self.progress.stage("retrieval", total=len(TASKS) * papers * self.context),
            )
            return [asdict(each) for each in scores]

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

    def rivals(self, text: Material) -> list[Result]:
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

    def _contending(
        self, text: Material, make: Callable[[], Contender]
    ) -> Callable[[], list[dict[str, Any]]]:
        """Return what judges one contender."""

        def staged(name: str, total: int) -> Callable[[int], None]:
            return self.progress.stage(f"{make().name}: {name}", total=total, unit="parts")

        def work() -> list[dict[str, Any]]:
            points = compare(
                self.model,
                fit=text.fit,
                select=text.select,
                test=text.test,
                contenders=[make],
                progress=staged,
            )
            return [asdict(each) for each in points]

        return work
