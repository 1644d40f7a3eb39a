"""A model under study: what an analysis looks at, where it keeps what is done, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.analysis.settings import AnalysisConfig
from torchcram.pretrained.plain import T
from torchcram.pretrained.sites import AttentionSite
from torchcram.pretrained.store import Store
from torchcram.pretrained.texts import Corpus, Split, Window


@dataclass(frozen=True, kw_only=True)
class Study:
    """One analysis under way.

    Attributes:
        model, tokenizer: of Transformers, at rest.
        sites: attention blocks.
        corpus: windows of each split.
        settings: of the analysis.
        store: keeps what is done.
        progress: shows it.
    """

    model: Any
    tokenizer: Any
    sites: list[AttentionSite]
    corpus: Corpus
    settings: AnalysisConfig
    store: Store
    progress: AnalysisProgress

    def kept(self, stage: str, kind: Callable[..., T], compute: Callable[[], T]) -> T:
        """Return what a stage kept, of this type, or compute and keep it."""
        content = self.store.load(stage, kind)
        if content is None:
            start = time.perf_counter()
            content = compute()
            self.store.keep(stage, content, seconds=time.perf_counter() - start)
        return content

    def windows(self, split: Split, tokens: int | None = None, *, least: int = 1) -> list[Window]:
        """Return the first windows of a split that together have so many tokens.

        Args:
            split: where they are from.
            tokens: how many; None for all.
            least: number of windows that are returned at least, if there are so many.
        """
        chosen: list[Window] = []
        count = 0
        for window in self.corpus.windows[split]:
            if tokens is None or count < tokens or len(chosen) < least:
                chosen.append(window)
                count += len(window.ids)
        return chosen

    def ids(self, split: Split, tokens: int | None = None, *, least: int = 1) -> list[Int[Tensor, " _"]]:
        """Return the tokens of :meth:`windows`, where the model is."""
        return self.on_device(self.windows(split, tokens, least=least))

    def on_device(self, windows: Sequence[Window]) -> list[Int[Tensor, " _"]]:
        """Return the tokens of windows, where the model is."""
        device = self.model.get_input_embeddings().weight.device
        return [window.ids.to(device) for window in windows]
