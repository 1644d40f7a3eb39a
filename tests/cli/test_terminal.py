"""What a terminal, a locale and the name of a folder may be, and what is told at once."""

import io
import json
import os
import sys
from pathlib import Path

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


def test_a_folder_whose_name_is_no_text_on_a_terminal_that_knows_ascii_alone(monkeypatch):
    """What cannot be printed is written by its code; nothing fails after the work."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", said)
    place = os.fsdecode(b"run-\xff\xe9")
    assert run("train", "tiny.yaml", "--out", place, "--quiet", monkeypatch=monkeypatch) == 0
    assert run("train", "tiny.yaml", "--out", place, "--quiet", "--resume", monkeypatch=monkeypatch) == 0
    asked = ["--queries", "10", "--json", f"{place}/x.json"]
    assert run("evaluate", place, *asked, monkeypatch=monkeypatch) == 0
    assert run("report", place, monkeypatch=monkeypatch) == 0
    text = said.buffer.getvalue().decode("ascii")
    assert r"run-\udcff\udce9/summary.json" in text
    assert text.splitlines()[-1] == r"run-\udcff\udce9/report.html"
    assert json.loads(Path(place, "summary.json").read_text())["run_dir"] == place
