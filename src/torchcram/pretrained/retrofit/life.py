"""The life of a retrofit in one call: acquire, refit, fit the routers, distil, certify, judge, save."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.retrofit.certificate import Certificate
from torchcram.pretrained.retrofit.install import attention_blocks, is_retrofitted, remove
from torchcram.pretrained.retrofit.judge import Judgement
from torchcram.pretrained.retrofit.making import Making
from torchcram.pretrained.retrofit.maturing import Matured
from torchcram.pretrained.retrofit.processes import processes_here
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.pretrained.sites import at_rest, vocabulary_size
from torchcram.pretrained.texts import make_corpus
from torchcram.runs.lock import alone
from torchcram.strict import require_positive

# Tokens of text that are cut into windows, at most.
MOST_TOKENS = 400_000


@dataclass(frozen=True, kw_only=True)
class Retrofitted:
    """A retrofitted model, and how it was found on text that nothing was fitted to.

    Attributes:
        model: the one that was given, changed in place.
        judged: by name: reads as wanted, none, all.
        folder: where it is saved, or None.
        matured: what was distilled; None if there was no time for it.
        certificate: None without a risk.
    """

    model: Any
    judged: dict[str, Judgement]
    folder: Path | None
    matured: Matured | None = None
    certificate: Certificate | None = None


def retrofit(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    reads: float = 0.25,
    risk: float | None = None,
    minutes: float = 10.0,
    context: int = 1024,
    settings: RetrofitSettings | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> Retrofitted:
    """Give a pretrained causal language model the three memories, and teach them.

    Args:
        model: of Transformers; it is changed in place, and its weights stay as they are.
        tokenizer: of the same.
        texts: one string a document.
        reads: share of token x layer that may read beyond what is near, in [0, 1].
        risk: share of next tokens that may differ from the untouched model's, in (0, 1): the price of a read
            is then certified to keep it, and ``reads`` is only what is taught; None certifies nothing.
        minutes: that it may take, more or less. Up to 10 buy the closed form, more a distillation.
        context: longest window, in tokens.
        settings: what to build.
        out: folder to save to, also to resume; None saves nothing.
        seed: of windows, labels and first weights.
        show_progress: whether to show it on stderr.

    Returns:
        The model, and how it was judged.

    Raises:
        ValueError: for a model, tokenizer or text that does not fit, or a folder that holds something else
            or that another process is at.
            After any failure the model is the untouched one.
    """
    require_positive(minutes=minutes, context=context)
    if not 0 <= reads <= 1:
        raise ValueError(f"reads {reads} must lie in [0, 1]: the share of token x layer that may read")
    if risk is not None and not 0 < risk < 1:
        raise ValueError(f"risk {risk} must lie in (0, 1): the share of next tokens that may differ")
    chosen = settings or RetrofitSettings()
    if context <= chosen.held:
        raise ValueError(
            f"context {context} holds nothing beyond the near tokens ({chosen.held}): use a longer context"
        )
    if is_retrofitted(model):
        raise ValueError("the model is retrofitted already: torchcram.remove(model) gives it back")
    attention_blocks(model)
    corpus = make_corpus(
        texts, tokenizer, tokens=MOST_TOKENS, context=context, vocabulary=vocabulary_size(model), seed=seed
    )
    processes = processes_here()
    with _untouched_on_failure(model), at_rest(model), _frozen(model):
        with AnalysisProgress(show=show_progress and processes.first) as progress:
            making = Making(
                model,
                corpus,
                chosen,
                reads=reads,
                minutes=minutes,
                out=None if out is None else Path(out),
                seed=seed,
                risk=risk,
                processes=processes,
            )
            with _alone(making):
                lived = making.live(progress)
                folder = making.finish(tokenizer, lived)
        return Retrofitted(
            model=model,
            judged=lived.judged,
            folder=folder,
            matured=lived.matured,
            certificate=lived.certificate,
        )


@contextmanager
def _alone(making: Making) -> Iterator[None]:
    """Hold the folder of a making, which the processes share."""
    with ExitStack() as held:
        if making.place is not None:
            folder = making.place
            making.processes.told(lambda: held.enter_context(alone(folder)))
        yield


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """No weight of the model asks for gradients, for a while."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def _untouched_on_failure(model: Any) -> Iterator[None]:
    """Take half-made memories out again, also after Ctrl-C: what is kept to go on with lies on disk."""
    try:
        yield
    except BaseException:
        if is_retrofitted(model):
            remove(model)
        raise
