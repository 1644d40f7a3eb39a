"""What calibration asks a language model about documents: which predictions change, which tokens read.

A document's loss is the share of its likeliest next tokens that differ from those of the most cautious
threshold, at which every token in need reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from torchcram.calibration.curve import Judge, Judgement
from torchcram.types import Route, RoutingControl


@dataclass(frozen=True, kw_only=True)
class Documents:
    """A batch of documents, one a row: token ids, and True on real tokens."""

    tokens: Int[Tensor, "documents tokens"]
    real: Bool[Tensor, "documents tokens"]

    def rows(self, chosen: Int[Tensor, " rows"]) -> Documents:
        """Return some of the documents."""
        place = chosen.to(self.tokens.device)
        return Documents(tokens=self.tokens[place], real=self.real[place])


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The likeliest next tokens of some documents, and the route of every token in every layer."""

    tokens: Int[Tensor, "documents tokens"]
    routes: UInt8[Tensor, "documents layers tokens"]

    def rows(self, chosen: Int[Tensor, " rows"]) -> Predictions:
        """Return those of some of the documents."""
        return Predictions(tokens=self.tokens[chosen], routes=self.routes[chosen])


def load_documents(batches: Any) -> list[Documents]:
    """Return a user's batches of documents.

    Args:
        batches: a list of token ids, or of mappings with ``input_ids`` and perhaps ``attention_mask``.

    Raises:
        ValueError: for a single batch, no document, and what are no token ids; it names the batch.
    """
    if isinstance(batches, Tensor | Mapping | str):
        raise ValueError(f"batches is one {type(batches).__name__}: pass a list of batches, [batch]")
    documents = [_documents(batch, f"batch {index}") for index, batch in enumerate(batches)]
    if not documents:
        raise ValueError(
            "there are no documents to calibrate on: pass batches of token ids, one row a document"
        )
    return documents


def _documents(batch: Any, name: str) -> Documents:
    if isinstance(batch, Mapping) and "input_ids" not in batch:
        raise ValueError(f"{name} has no 'input_ids', only {', '.join(map(str, batch)) or 'nothing'}")
    tokens = batch["input_ids"] if isinstance(batch, Mapping) else batch
    if not isinstance(tokens, Tensor):
        raise ValueError(
            f"{name} holds its token ids as {type(tokens).__name__}: pass a tensor (return_tensors='pt')"
        )
    if tokens.dim() != 2 or tokens.is_floating_point() or tokens.numel() == 0:
        raise ValueError(
            f"{name} is {tokens.dtype} {list(tokens.shape)}: token ids are integers, [documents, tokens], at "
            "least one of each"
        )
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
    if real.shape != tokens.shape:
        raise ValueError(
            f"{name} has an attention_mask {list(real.shape)} for input_ids {list(tokens.shape)}"
        )
    return Documents(tokens=tokens, real=real)


def document_judge(
    documents: Documents,
    predict: Callable[[Documents, RoutingControl], Predictions],
    *,
    most_cautious: float,
) -> Judge:
    """Return what judges the documents of a batch against the most cautious shift."""
    silent = predict(documents, RoutingControl(threshold_shift=most_cautious))
    real = documents.real.cpu()

    def judge(shift: float, rows: Int[Tensor, " rows"]) -> Judgement:
        done = (
            silent.rows(rows)
            if shift == most_cautious
            else predict(documents.rows(rows), RoutingControl(threshold_shift=shift))
        )
        tokens, read = real[rows].sum(1), (done.routes == int(Route.EPISODIC)).any(1) & real[rows]
        changed = (done.tokens != silent.tokens[rows]) & real[rows]
        return Judgement(
            losses=changed.sum(1) / tokens,
            skipped=1 - read.sum(1) / tokens,
            reads=read.sum(1) / tokens,
            routes=tuple(route.numpy().tobytes() for route in done.routes),
        )

    return judge
