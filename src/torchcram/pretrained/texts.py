"""Text for an analysis: files become documents, documents become windows of tokens, and whole documents go to
fit, select or test.

Windows hold no padding: a document that ends early gives a shorter window. The splits take turns over the
documents, so that each split sees as many of them as it can; nothing that is chosen is chosen on the test
split.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from torchcram.strict import require_positive

Split = Literal["fit", "select", "test"]
SPLITS: tuple[Split, ...] = ("fit", "select", "test")
# Of every ten documents one is for selection and one for the test.
SHARES = {"fit": 0.8, "select": 0.1, "test": 0.1}
# With fewer documents than this, they are cut into so many parts.
FEWEST_DOCUMENTS = 10
# A rest of a document shorter than this share of a window is left out.
SHORTEST = 0.25
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".text")


@dataclass(frozen=True, kw_only=True)
class Window:
    """Consecutive tokens of one document.

    ``document`` counts all documents, ``start`` the tokens of its document before this window.
    """

    document: int
    start: int
    ids: Int[Tensor, " tokens"]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The windows of each split, and a digest of what they hold."""

    windows: dict[Split, list[Window]]
    documents: int
    digest: str

    def tokens(self, split: Split) -> int:
        """Return the number of tokens of a split."""
        return sum(len(window.ids) for window in self.windows[split])


def load_texts(paths: Sequence[str | Path]) -> list[str]:
    """Return the content of text files, in order; a folder stands for the text files in it.

    Raises:
        ValueError: if a path does not exist, is no text, or nothing is left.
    """
    texts = [_loaded(file) for path in paths for file in _files(Path(path))]
    if not any(text.strip() for text in texts):
        raise ValueError(f"there is no text in {', '.join(map(str, paths))}")
    return texts


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise ValueError(f"there is no text {path}")
    if not path.is_dir():
        yield path
        return
    files = sorted(file for file in path.rglob("*") if file.suffix in TEXT_SUFFIXES)
    if not files:
        raise ValueError(
            f"the folder {path} holds no text files ({', '.join(TEXT_SUFFIXES)}): name the files themselves"
        )
    yield from files


def _loaded(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 text (byte {error.start}): convert it, or leave it out"
        ) from None
    if "\x00" in text:
        raise ValueError(f"{file} is not text: it holds zero bytes")
    return text


def make_corpus(
    texts: Sequence[str], tokenizer: Any, *, tokens: int, context: int, vocabulary: int, seed: int = 0
) -> Corpus:
    """Cut texts into windows and deal them out.

    Args:
        texts: one string per document.
        tokenizer: of Transformers.
        tokens: of the fit split; the other two get an eighth of it each.
        context: longest window.
        vocabulary: number of tokens that the model knows.
        seed: of the order of documents and windows.

    Raises:
        ValueError: if there is too little text, or the tokenizer is not the model's.
    """
    require_positive(tokens=tokens, context=context)
    encoded = [ids for ids in (_encode(tokenizer, text, vocabulary) for text in texts) if len(ids)]
    if not encoded:
        raise ValueError("the text has no tokens: it is empty, or nothing but blanks")
    longest = max(len(ids) for ids in encoded)
    if longest < context:
        warnings.warn(
            (
                f"the longest document has {longest} tokens, less than one window of {context}: "
                "windows are as long as documents"
            ),
            stacklevel=3,
        )
    documents = _enough_documents(encoded, context=context)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(documents))
    wanted = {"fit": tokens, "select": max(tokens // 8, 1), "test": max(tokens // 8, 1)}
    windows = {
        split: _deal(documents, chosen, wanted=wanted[split], context=context, generator=generator)
        for split, chosen in _split(order).items()
    }
    for split in SPLITS:
        if not windows[split]:
            raise ValueError(
                f"the text is too short: nothing is left for the {split} split; use a smaller "
                f"--context than {context}, or more text"
            )
    return Corpus(windows=windows, documents=len(documents), digest=_digest(windows))


def _encode(tokenizer: Any, text: str, vocabulary: int) -> Tensor:
    # A tokenizer warns of texts longer than the model's context, and windows are what the model gets.
    ids = torch.tensor(
        tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.long
    )
    if len(ids) and int(ids.max()) >= vocabulary:
        raise ValueError(
            f"token {int(ids.max())} is unknown to the model, which knows {vocabulary}: this is "
            "the tokenizer of another model"
        )
    # A tokenizer that was told to pad does so here, too; padding is no text. Where one token pads and ends,
    # it may be text.
    padding = getattr(tokenizer, "pad_token_id", None)
    return (
        ids if padding is None or padding == getattr(tokenizer, "eos_token_id", None) else ids[ids != padding]
    )


def _enough_documents(encoded: list[Tensor], *, context: int) -> list[Tensor]:
    """Cut a few long documents into parts, so that three splits can be made; parts of one text are less
    independent than documents, which is said.
    """
    if len(encoded) >= FEWEST_DOCUMENTS:
        return encoded
    warnings.warn(
        (
            f"only {len(encoded)} documents: they are cut into parts, and the splits are less "
            "independent than with more documents"
        ),
        stacklevel=4,
    )
    total = sum(map(len, encoded))
    size = max(min(context, total // FEWEST_DOCUMENTS), total // (4 * FEWEST_DOCUMENTS), 2)
    return [part for ids in encoded for part in ids.split(size)]


def _split(order: Int[np.ndarray, " documents"]) -> dict[Split, list[int]]:
    held = max(round(SHARES["test"] * len(order)), 1)
    return {
        "fit": order[2 * held :].tolist(),
        "select": order[:held].tolist(),
        "test": order[held : 2 * held].tolist(),
    }


def _deal(
    documents: list[Tensor], chosen: list[int], *, wanted: int, context: int, generator: np.random.Generator
) -> list[Window]:
    """One window of each document, then a second one of each, until there are enough tokens."""
    stacks = [_windows(documents[index], index, context=context, generator=generator) for index in chosen]
    dealt: list[Window] = []
    count = 0
    for turn in range(max(map(len, stacks), default=0)):
        for stack in stacks:
            if turn < len(stack) and count < wanted:
                dealt.append(stack[turn])
                count += len(stack[turn].ids)
    return dealt


def _windows(ids: Tensor, document: int, *, context: int, generator: np.random.Generator) -> list[Window]:
    starts = [
        start for start in range(0, len(ids), context) if start == 0 or len(ids) - start >= SHORTEST * context
    ]
    windows = [Window(document=document, start=start, ids=ids[start : start + context]) for start in starts]
    return [windows[place] for place in generator.permutation(len(windows)) if len(windows[place].ids) > 1]


def _digest(windows: dict[Split, list[Window]]) -> str:
    sha = hashlib.sha256()
    for split in SPLITS:
        for window in windows[split]:
            sha.update(split.encode() + window.ids.numpy().tobytes())
    return sha.hexdigest()[:16]
