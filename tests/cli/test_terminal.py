"""What a terminal, a locale and the name of a folder may be, and what is told at once."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from command_line import run
from torchcram.cli import app


def test_the_version_is_told():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    name, version = result.output.split()
    assert (name, version[0].isdigit()) == ("torchcram", True)


def test_the_questions_of_bench_are_told():
    from torchcram.bench.questions import QUESTIONS

    result = CliRunner().invoke(app, ["bench", "--help"])
    assert [name for name in QUESTIONS if name not in result.output] == []


@pytest.mark.slow
def test_a_folder_whose_name_is_no_text_fails_nothing_after_the_work(monkeypatch):
    """On a terminal that knows ASCII alone, and on one that knows all text."""
    place, said = os.fsdecode(b"run-\xff\xe9"), {}

    def ended(*arguments: str, encoding: str) -> bool:
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
        monkeypatch.setattr(sys, "stdout", stream)
        status = run(*arguments, monkeypatch=monkeypatch)
        said[arguments[0]] = stream.buffer.getvalue().decode(encoding)
        return status == 0

    assert ended("train", "tiny.yaml", "--out", place, "--quiet", encoding="ascii")
    asked = ["--queries", "10", "--json", f"{place}/x.json"]
    assert ended("evaluate", place, *asked, encoding="ascii")
    assert ended("report", place, encoding="utf-8")
    assert "summary.json" in said["train"].splitlines()[-1]
    assert said["report"] == "run-\\udcff\\udce9/report.html\n"
    assert json.loads(Path(place, "summary.json").read_text())["run_dir"] == place
    assert "run-\\udcff\\udce9" in Path(place, "report.html").read_text()
