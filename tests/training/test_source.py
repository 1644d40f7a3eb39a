"""The hash of the code: what a run computes changes it, how it is explained does not."""

import pytest

from torchcram.training import source
from torchcram.training.source import hash_of, source_hash

CODE = 'def double(x):\n    """Twice."""\n    return 2 * x  # exact\n'


@pytest.mark.parametrize("text", ['"""A module."""\n' + CODE, CODE.replace("Twice", "Two times"), CODE.replace("  # exact", ""), "\n\n" + CODE])
def test_comments_docstrings_and_blank_lines_do_not_count(text):
    assert hash_of({"a.py": text}) == hash_of({"a.py": CODE})


@pytest.mark.parametrize("sources", [{"a.py": CODE.replace("2", "3")}, {"b.py": CODE}, {"a.py": CODE, "b.py": ""}, {}])
def test_code_and_names_of_files_count(sources):
    assert hash_of(sources) != hash_of({"a.py": CODE})


def test_a_body_of_a_docstring_alone_can_be_hashed():
    assert hash_of({"a.py": 'class Stop(Exception):\n    """Enough."""\n'}) == hash_of({"a.py": "class Stop(Exception):\n    pass\n"})


def test_how_results_are_shown_does_not_make_them_stale(monkeypatch, tmp_path):
    for name, text in {"ops/scan.py": CODE, "report/style.py": "RED = 1\n", "cli.py": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(source, "PACKAGE", tmp_path)
    first = source_hash.__wrapped__()
    (tmp_path / "report/style.py").write_text("RED = 2\n")
    assert source_hash.__wrapped__() == first
    (tmp_path / "ops/scan.py").write_text(CODE.replace("2", "3"))
    assert source_hash.__wrapped__() != first


def test_the_package_has_one():
    assert len(source_hash()) == 12
