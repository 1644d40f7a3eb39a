"""What cannot be written, and what cannot be asked, is said before the work and not after it."""

import os
from pathlib import Path

import pytest

from command_line import run


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    """Whatever takes long is never begun."""

    def begun(*arguments: object, **options: object) -> None:
        raise AssertionError("the work has begun")

    for work in (
        "torchcram.training.loop.load_run",
        "torchcram.tasks.srcd.SRCD.batch",
        "torchcram.pretrained.texts.load_texts",
        "torchcram.reproduce.reproduction.look_up",
    ):
        monkeypatch.setattr(work, begun)


def test_the_work_would_begin(monkeypatch):
    Path("there").mkdir()
    for arguments in (
        ["evaluate", "run", "--json", "there/x.json"],
        ["tasks", "srcd", "--out", "there/x.png"],
        ["analyze", "model", "text", "--out", "there/new/place"],
        ["reproduce", "all", "--out", "there", "--runs", "there/runs"],
    ):
        with pytest.raises(AssertionError, match="the work has begun"):
            run(*arguments, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "run", "--json", "no/such/x.json"], "no/such/x.json: there is no folder no/such"),
        (["evaluate", "run", "--json", "there"], "cannot write there: it is a folder; name a file"),
        (["calibrate", "run", "--json", "no/such/x.json"], "no/such/x.json: there is no folder no/such"),
        (["tasks", "srcd", "--out", "no/such/x.png"], "no/such/x.png: there is no folder no/such"),
        (["tasks", "srcd"], "there is a srcd.png already: say --out srcd.png to draw over it"),
        (["analyze", "model", "text", "--out", "srcd.png/x"], "cannot write into srcd.png/x"),
        (["analyze", "model", "text", "--out", "."], ". exists and is no analysis"),
        (["retrofit", "model", "text", "--out", "srcd.png/x"], "cannot write into srcd.png/x"),
        (["reproduce", "all", "--out", "srcd.png"], "cannot write into srcd.png"),
        (["reproduce", "all", "--runs", "srcd.png/runs"], "cannot write into srcd.png/runs"),
        (["calibrate", "run", "--tolerance", "0"], "--tolerance 0.0 must lie strictly between 0 and 1"),
        (["calibrate", "run", "--tolerance", "nan"], "--tolerance nan must lie strictly between 0 and 1"),
        (["calibrate", "run", "--tolerance", "2"], "--tolerance 2.0 must lie strictly between 0 and 1"),
        (["evaluate", "run", "--shift", "nan"], "--shift nan is no number"),
    ],
)
def test_it_is_one_line_and_nothing_is_touched(monkeypatch, capsys, contents, tmp_path, arguments, message):
    Path("there").mkdir()
    Path("srcd.png").write_bytes(b"a picture")
    before = contents(tmp_path)
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "run", "--json", "there/x.json"],
        ["tasks", "srcd", "--out", "there/x.png"],
        ["analyze", "model", "text", "--out", "there/new"],
        ["reproduce", "all", "--out", "there/new"],
    ],
)
def test_a_place_without_permission_is_named(monkeypatch, capsys, arguments):
    """Whoever runs the tests may be allowed everything."""
    Path("there").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "there" not in str(path) and access(path, mode))
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    assert "no permission to write" in capsys.readouterr().err
