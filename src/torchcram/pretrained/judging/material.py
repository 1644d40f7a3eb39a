"""The text of a judgement, dealt out: what is judged never sets a budget and teaches no rival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchcram.pretrained.sites import vocabulary_size
from torchcram.pretrained.texts import Corpus, Split, make_corpus

# Windows on which prices are found, and from which rivals learn.
SELECT, FIT = 2, 8


@dataclass(frozen=True, kw_only=True)
class Material:
    """Windows that are judged, on which budgets are set, and from which rivals learn; and a digest of all."""

    test: list[Tensor]
    select: list[Tensor]
    fit: list[Tensor]
    digest: str


def deal(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    fit_texts: Sequence[str],
    *,
    tokens: int,
    windows: int,
    seed: int,
) -> Material | None:
    """Deal out the text.

    Args:
        model: retrofitted.
        tokenizer: its own.
        texts: documents that are judged; None is returned without any.
        fit_texts: documents that set budgets and teach; a part of ``texts`` if there are none.
        tokens: of a window.
        windows: that are judged, at most.
        seed: of the order of documents and windows.

    Raises:
        ValueError: if there is too little text.
    """
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
    return Material(
        test=test[:windows],
        select=dealt(other, "select")[:SELECT],
        fit=dealt(other, "fit")[:FIT],
        digest=f"{judged.digest} {other.digest} {windows}",
    )
