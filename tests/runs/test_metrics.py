"""One rule for lines that were cut off and for lines that are damaged, whoever reads."""

from pathlib import Path

import pytest

from torchcram.runs.metrics import TAIL, append_line, last_step, load_lines, mark, text_until


@pytest.fixture
def file(tmp_path) -> Path:
    file = tmp_path / "metrics.jsonl"
    for step in range(6):
        append_line(file, {"kind": "train", "step": step})
    return file


def steps(file: Path) -> list[int]:
    return [record["step"] for record in load_lines(file)[0]]


def test_no_file_holds_no_lines(tmp_path):
    assert load_lines(tmp_path / "metrics.jsonl") == ([], False)
    assert last_step(tmp_path / "metrics.jsonl") is None
    assert text_until(tmp_path / "metrics.jsonl", mark(tmp_path / "metrics.jsonl")) == ""


@pytest.mark.parametrize("rest", ['{"kind": "tra', '{"kind": "train", "step": 6}', "\0\0"])
def test_what_follows_the_last_line_feed_is_left_out_by_all_who_read(file, rest):
    """Also where it looks complete: the next line would be appended to it."""
    assert load_lines(file)[1] is False
    with file.open("a") as handle:
        handle.write(rest)
    assert (steps(file), load_lines(file)[1], last_step(file)) == ([0, 1, 2, 3, 4, 5], True, 5)


@pytest.mark.parametrize(
    "damaged", ["", '{"kind": "train", "st', '{"step": 4}', '{"kind": "train"}', "[4]", "7", "\0\0"]
)
def test_a_damaged_line_is_named_and_nothing_is_dropped(file, damaged):
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:4], damaged, *lines[5:]]) + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 5 .*restore it from a copy"):
        load_lines(file)


def test_the_last_step_is_read_from_the_end_alone(file):
    with file.open("a") as handle:
        handle.write("no record\n" + '{"kind": "train", "step": 9')
    assert last_step(file) == 5
    append_line(file, {"kind": "train", "step": 7, "long": "x" * 2 * TAIL})
    append_line(file, {"kind": "train", "step": 8})
    assert last_step(file) == 8


def test_the_lines_before_survive_a_full_disk(file, monkeypatch, contents):
    before = contents(file.parent)

    def full_disk(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full_disk)
    with pytest.raises(OSError, match=r"cannot write .*metrics\.jsonl: No space left on device"):
        append_line(file, {"kind": "train", "step": 6})
    monkeypatch.undo()
    assert contents(file.parent) == before


def test_what_was_recorded_after_a_mark_is_left_out(file):
    there, before = mark(file), file.read_text()
    append_line(file, {"kind": "train", "step": 6})
    with file.open("a") as handle:
        handle.write('{"kind": "tra')
    assert text_until(file, there) == before


@pytest.mark.parametrize("damage", ["missing", "empty", "shorter", "another number", "no line"])
def test_what_no_longer_holds_what_was_marked_is_refused(file, damage):
    there, text = mark(file), file.read_text()
    changed = {
        "empty": "",
        "shorter": text[: len(text) // 2],
        "another number": text.replace('"step": 3', '"step": 2'),
        "no line": text.replace('"step": 3', '"step" 3'),
    }
    file.unlink() if damage == "missing" else file.write_text(changed[damage])
    expected = r"damaged in line 4" if damage == "no line" else r"is missing or damaged"
    with pytest.raises(ValueError, match=rf"metrics\.jsonl.*{expected}.*: restore it from a copy"):
        text_until(file, there)
