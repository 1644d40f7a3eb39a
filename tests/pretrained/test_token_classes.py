"""Kinds of tokens are what their names say."""

import numpy as np
import torch

from tiny_models import CharTokenizer
from torchcram.pretrained.texts import Window
from torchcram.pretrained.token_classes import repeats, token_classes


def test_a_repeated_gram_ends_where_it_occurs_again():
    assert repeats(np.array([1, 2, 3, 1, 2, 3, 2, 3])).tolist() == [False] * 5 + [True, False, False]


def test_classes_of_two_windows():
    counts = np.zeros(64, dtype=np.int64)
    counts[[5, 6, 7]] = [60, 35, 5]
    windows = [
        Window(document=0, start=0, ids=torch.tensor([5, 6, 7, 5, 5])),
        Window(document=1, start=9, ids=torch.tensor([7, 9])),
    ]
    found = token_classes(windows, CharTokenizer(), counts)
    assert found["first token (sink)"].tolist() == [True, False, False, False, False, True, False]
    assert found["next 3 tokens"].tolist() == [False, True, True, True, False, False, True]
    assert found["frequent token"].tolist() == [True, False, False, True, True, False, False]
    assert found["middling token"].tolist() == [False, True, False, False, False, False, False]
    # Token 9 was never seen: the rarest of all.
    assert found["rare token"].tolist() == [False, False, True, False, False, True, True]
    positions = [
        found[name]
        for name in (
            "first token (sink)",
            "next 3 tokens",
            "position 4 to 63",
            "position 64 to 511",
            "position 512 and later",
        )
    ]
    assert np.sum(positions, 0).tolist() == [1] * 7


def test_punctuation_has_a_sign_and_no_letter():
    class Signs:
        def decode(self, ids):
            return {1: ",", 2: " ", 3: "a,", 4: "--"}[ids[0]]

    window = Window(document=0, start=0, ids=torch.tensor([1, 2, 3, 4]))
    assert token_classes([window], Signs(), np.ones(8, dtype=np.int64))["punctuation"].tolist() == [
        True,
        False,
        False,
        True,
    ]
