"""Analyse a pretrained language model: how predictable its attention is, under every definition, and what
replacing it really costs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.analysis.findings import kept_findings, write_findings
from torchcram.pretrained.analysis.measure import measure, tidy
from torchcram.pretrained.analysis.ridge import require_tokens
from torchcram.pretrained.analysis.settings import AnalysisConfig
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.sites import at_rest, find_sites, vocabulary_size
from torchcram.pretrained.store import Store
from torchcram.pretrained.texts import Corpus, make_corpus
from torchcram.runs.lock import alone


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What an analysis found.

    Attributes:
        summary: content of ``summary.json``.
        plan: content of ``plan.json``.
        details: content of ``details.json``: what the figures are drawn from.
        path: the folder; None if none was given.
    """

    summary: dict[str, Any]
    plan: dict[str, Any]
    details: dict[str, Any]
    path: Path | None


def analyze(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    settings: AnalysisConfig | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    show_progress: bool = False,
) -> Analysis:
    """Measure how predictable a language model's attention is, and what replacing it costs.

    Args:
        model: causal language model of Transformers; it is left as it was.
        tokenizer: the model's own.
        texts: one string per document, at least a few dozen documents for honest intervals.
        settings: what to measure, on how much text.
        out: folder for results and for resuming; without it nothing is kept.
        name: of the model, in the report; that of its configuration if not given.
        show_progress: show live progress on stderr.

    Raises:
        ValueError: if the model, the tokenizer or the text cannot be analysed, or another process is at the
            folder; the message says what to do.
        FloatingPointError: if the model's precision overflows.
    """
    settings = settings or AnalysisConfig()
    sites = find_sites(model)
    corpus = _corpus(model, tokenizer, texts, settings)
    require_tokens(corpus.tokens("fit"), max(site.width for site in sites))
    identity = {
        "model": fingerprint(model),
        "text": corpus.digest,
        "settings": settings.model_dump(mode="json"),
    }
    with ExitStack() as stack:
        folder = (
            Path(out) if out is not None else Path(stack.enter_context(TemporaryDirectory())) / "analysis"
        )
        store = Store(folder, identity=identity)
        progress = stack.enter_context(AnalysisProgress(show=show_progress))
        stack.enter_context(at_rest(model))
        study = Study(
            model=model,
            tokenizer=tokenizer,
            sites=sites,
            corpus=corpus,
            settings=settings,
            store=store,
            progress=progress,
        )
        content = kept_findings(store.files)
        if content is None:
            stack.enter_context(alone(folder))
            name = name or str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
            content = write_findings(study, measure(study), name=name)
            tidy(study)
        return Analysis(**content, path=folder if out is not None else None)


def _corpus(model: Any, tokenizer: Any, texts: Sequence[str], settings: AnalysisConfig) -> Corpus:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and settings.context > limit:
        raise ValueError(
            f"the context of {settings.context} tokens is longer than the model's {limit}: use "
            f"--context {limit}"
        )
    return make_corpus(
        texts,
        tokenizer,
        tokens=settings.tokens,
        context=settings.context,
        vocabulary=vocabulary_size(model),
        seed=settings.seed,
    )


def fingerprint(model: nn.Module) -> str:
    """Return a digest of a sample of a model's weights: another model, or another checkpoint, has another
    one.
    """
    sha = hashlib.sha256()
    for name, parameter in model.named_parameters():
        sha.update(name.encode() + parameter.detach().flatten()[:16].float().cpu().numpy().tobytes())
    return sha.hexdigest()[:16]
