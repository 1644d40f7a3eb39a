"""Files are written as a whole or not at all, and read with errors that name them."""

import errno
import math

import pytest

from torchcram.runs.files import read_json, write_json, write_text


def full_disk(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_the_older_file(tmp_path, monkeypatch, contents):
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})
    before = contents(tmp_path)
    monkeypatch.setattr("os.fsync", full_disk)
    message = r"cannot write .*a\.json: No space left on device\. Free some space, then use --resume"
    with pytest.raises(OSError, match=message):
        write_json(file, {"new": 2})
    assert contents(tmp_path) == before


def test_what_has_no_value_is_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": math.nan, "b": [math.inf, 1.5, {"c": -math.inf}], "d": (1, "x")})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.5, {"c": None}], "d": [1, "x"]}


def test_text_is_utf_8_in_any_locale(tmp_path, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    monkeypatch.setattr("locale.getencoding", lambda: "ascii", raising=False)
    write_text(tmp_path / "page.html", "≤ 0.1")
    assert (tmp_path / "page.html").read_bytes() == "≤ 0.1".encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"half": ', "is damaged"),
        (b"", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[1, 2]", "is damaged .it holds a list, not an object"),
        (b"null", "is damaged .it holds a NoneType, not an object"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json {message}.*: restore it from a copy, or delete the run"):
        read_json(tmp_path / "a.json")
