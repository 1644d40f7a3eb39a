"""`torchcram reproduce` on the command line: what it would do, what it writes, and its one-line errors."""

import sys
from pathlib import Path

import pytest

from fake_runs import fake_run
from torchcram.cli import main
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.effort import core_hours
from torchcram.reproduce.plan import plan
from torchcram.reproduce.results_page import OVERVIEW
from torchcram.runs.source import source_hash
from torchcram.training.presets import PRESETS


@pytest.fixture(autouse=True)
def _apart(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["torchcram", "reproduce", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_dry_run_shows_what_is_to_do_and_writes_nothing(monkeypatch, capsys, tmp_path):
    jobs = [
        run.job
        for run in plan([CLAIMS["07_recurrence"]], scale="mini", seeds=1, runs=tmp_path, source=source_hash())
    ]
    assert run(monkeypatch, "07_recurrence", "--seeds", "1", "--dry-run") == 0
    said = capsys.readouterr().out
    steps = 6 * PRESETS["mini"]().training.steps
    assert f"6 processes to run, {steps:,} training steps, about {core_hours(jobs):.1f} core-hours" in said
    assert said.count("missing") == 6
    assert list(tmp_path.iterdir()) == []


def test_one_method_alone_can_be_trained(monkeypatch, capsys):
    assert run(monkeypatch, "07_recurrence", "--seeds", "2", "--only", "recurrence50", "--dry-run") == 0
    assert "2 processes to run" in capsys.readouterr().out


def test_a_finished_claim_is_only_written_down(monkeypatch, capsys):
    for planned in plan(
        [CLAIMS["07_recurrence"]], scale="mini", seeds=1, runs=Path("runs/reproduce"), source=source_hash()
    ):
        fake_run(planned.job.folder, planned.job)
    Path("experiments").mkdir()
    Path("experiments/README.md").write_text("\n".join(OVERVIEW))
    assert run(monkeypatch, "07_recurrence", "--seeds", "1") == 0
    assert "| mini: partly (" in Path("experiments/README.md").read_text()
    assert capsys.readouterr().out == "07_recurrence: partly (experiments/07_recurrence/README.md)\n"
    assert Path("experiments/07_recurrence/figure.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["07_recurence"], "unknown claim '07_recurence': did you mean '07_recurrence'?"),
        (["all", "--scale", "deno"], "unknown scale 'deno': did you mean 'demo'?"),
        (["00_tuning", "--scale", "demo"], "claim '00_tuning' is trained at scale mini alone, not at demo"),
        (
            ["07_recurrence", "--only", "recurence50"],
            "unknown method 'recurence50': did you mean 'recurrence50'?",
        ),
        (["all", "--seeds", "0"], "seeds 0 must be at least 1"),
        (["all", "--jobs", "0"], "jobs 0 must be above 0"),
        (["all", "--executor", "slurm"], "unknown executor 'slurm': valid: local, ray"),
    ],
)
def test_what_cannot_be_asked_is_one_line(monkeypatch, capsys, tmp_path, arguments, message):
    assert run(monkeypatch, *arguments) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_one_line_that_names_it_and_nothing_is_written(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(monkeypatch, "07_recurrence", "--seeds", "1", "--executor", "ray") == 2
    assert (
        "error: this needs ray, which is not installed: pip install 'torchcram[ray]'"
        in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []
