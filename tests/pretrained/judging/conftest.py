"""A retrofitted model that knows its text, and a tokenizer with a first token."""

from __future__ import annotations

import pytest

from retrofitted import make_retrofitted
from tiny_models import CharTokenizer


class BeginningTokenizer(CharTokenizer):
    """One token per character, behind a token that begins a text."""

    def __call__(self, text, *, add_special_tokens=True, verbose=True):
        ids = super().__call__(text)["input_ids"]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}


@pytest.fixture
def tokenizer():
    return BeginningTokenizer()


@pytest.fixture
def model():
    return make_retrofitted()
