"""Files are written as a whole or not at all, and read with errors that name them."""

import errno
import math
from pathlib import Path

import pytest

from torchcram.runs.files import (
    load_json,
    load_json_list,
    load_sealed,
    require_place,
    require_writable,
    write_json,
    write_sealed,
    write_text,
)


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
    assert load_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.5, {"c": None}], "d": [1, "x"]}


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
    with pytest.raises(ValueError, match=rf"a\.json {message}.*: restore it from a copy, or delete it"):
        load_json(tmp_path / "a.json")


def test_a_list_of_objects_is_read_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, [{"a": 1}, {}])
    assert load_json_list(file) == [{"a": 1}, {}]
    for content in ("{}", "[1]", "[{}", "null"):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"a\.json is damaged"):
            load_json_list(file)


def test_a_sealed_file_is_what_was_written_or_refused(tmp_path):
    file = tmp_path / "state.json"
    content = {"step": 4, "seconds": 1.5, "controller": {"price": None, "losses": [0.1, 0.2]}}
    write_sealed(file, content)
    assert load_sealed(file) == content
    text = file.read_text()
    for changed in (text.replace("4", "5", 1), text.replace('"step": 4,', ""), text.replace("0.1", "0.11")):
        assert changed != text
        file.write_text(changed)
        with pytest.raises(ValueError, match=r"state\.json is damaged, or of another version"):
            load_sealed(file)


def test_places_are_looked_at_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for fine in (None, tmp_path / "new.json", tmp_path / "file"):
        require_writable(fine)
    for fine in (tmp_path, tmp_path / "new" / "deep"):
        require_place(fine)
    with pytest.raises(ValueError, match="there is no folder"):
        require_writable(tmp_path / "no" / "such.json")
    with pytest.raises(ValueError, match="it is a folder; name a file"):
        require_writable(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        require_place(tmp_path / "file" / "deep")
    monkeypatch.chdir(tmp_path)
    require_place(Path("runs"))
    require_writable(Path("x.json"))
