"""Documents go to one split each; what is no text is refused in words."""

import pytest

from tiny_models import CharTokenizer, documents
from torchcram.pretrained.texts import SPLITS, load_texts, make_corpus


def corpus(texts, **changes):
    return make_corpus(texts, CharTokenizer(), **{"tokens": 800, "context": 32, "vocabulary": 64, **changes})


def test_no_document_is_in_two_splits_and_splits_have_their_sizes():
    made = corpus(documents())
    found = [{window.document for window in made.windows[split]} for split in SPLITS]
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert not found[1] & found[2]
    assert made.tokens("fit") >= 800
    assert 100 <= made.tokens("test") < 132
    assert len(found[0]) == 24
    assert made.digest == corpus(documents()).digest != corpus(documents(), seed=1).digest


def test_windows_are_consecutive_tokens_of_their_document():
    texts = documents()
    for window in corpus(texts).windows["fit"]:
        expected = CharTokenizer()(texts[window.document])["input_ids"][
            window.start : window.start + len(window.ids)
        ]
        assert window.ids.tolist() == expected


def test_text_shorter_than_one_window_gives_shorter_windows_and_is_said():
    with pytest.warns(UserWarning, match="the longest document has 20 tokens, less than one window of 32"):
        made = corpus(documents(60, 20))
    assert max(len(window.ids) for window in made.windows["fit"]) == 20


def test_few_documents_are_cut_and_it_is_said():
    with pytest.warns(UserWarning, match="only 1 documents: they are cut into parts"):
        made = corpus(documents(1, 3000))
    assert all(made.windows[split] for split in SPLITS)


@pytest.mark.filterwarnings("ignore:only 1 documents", "ignore:the longest document")
def test_hardly_any_text_is_refused():
    with pytest.raises(ValueError, match="the text is too short: nothing is left for the"):
        corpus(["abc"])


def test_nothing_but_blanks_is_refused():
    class Stripping(CharTokenizer):
        def __call__(self, text, **options):
            return super().__call__(text.strip(), **options)

    with pytest.raises(ValueError, match="the text has no tokens: it is empty, or nothing but blanks"):
        make_corpus(["  ", "\n"], Stripping(), tokens=10, context=4, vocabulary=64)


class Padding(CharTokenizer):
    """A tokenizer that pads every document to 400 tokens."""

    pad_token_id, eos_token_id = 0, 1

    def __call__(self, text, **options):
        ids = super().__call__(text)["input_ids"]
        return {"input_ids": ids + [0] * (400 - len(ids))}


def test_padding_is_no_text():
    options = {"tokens": 800, "context": 32, "vocabulary": 64}
    assert (
        make_corpus(documents(), Padding(), **options).digest
        == make_corpus(documents(), CharTokenizer(), **options).digest
    )


def test_nothing_but_padding_is_refused():
    with pytest.raises(ValueError, match="the text has no tokens"):
        make_corpus([""] * 20, Padding(), tokens=800, context=32, vocabulary=64)


def test_the_tokenizer_of_another_model_is_refused():
    with pytest.raises(
        ValueError,
        match=r"token \d+ is unknown to the model, which knows 30: this is the tokenizer of another model",
    ):
        corpus(documents(), vocabulary=30)


def test_files_and_folders_are_read(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "deep" / "a.md").write_text("one")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert load_texts([tmp_path]) == ["two", "one"]
    assert load_texts([str(tmp_path / "b.txt")]) == ["two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\xff\xfe", r"bad\.txt is not UTF-8 text \(byte 0\): convert it, or leave it out"),
        (b"a\x00b", "holds zero bytes"),
        (b" \n", "there is no text in"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, message):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_texts([tmp_path / "bad.txt"])


def test_missing_files_and_folders_without_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no text nowhere"):
        load_texts(["nowhere"])
    (tmp_path / "data.csv").write_text("1")
    with pytest.raises(ValueError, match=r"holds no text files \(\.txt, \.md"):
        load_texts([tmp_path])
