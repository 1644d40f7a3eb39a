"""Runs that results hold are not trained again, on whatever machine they were made; nothing that a claim
needs is lost by it."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fake_runs import SOURCE, TOY, fake_run
from torchcram.cli import main
from torchcram.reproduce.claim import Method, Picture
from torchcram.reproduce.claim_page import write_claim
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.plan import plan
from torchcram.reproduce.records import key_of, recorded
from torchcram.reproduce.results import load_rows
from torchcram.reproduce.run_figures import COURSE_STEPS
from torchcram.runs.source import source_hash

TRAINING = replace(TOY, picture=Picture(kind="training", title="T", y="any_layer_read_rate"))
OTHER = replace(TOY, name="98_other", folder="98_other")


def planned(claim, runs, *, seeds=2, source=SOURCE):
    return plan([claim], scale="mini", seeds=seeds, runs=runs, source=source)


def made(claim, tmp_path, *, seeds=2, source=SOURCE):
    """Finish a claim on one machine, write its folder, and return the same plan as another machine sees
    it."""
    there = planned(claim, tmp_path / "there", seeds=seeds, source=source)
    for run in there:
        if not run.job.finished:
            fake_run(run.job.folder, run.job)
    write_claim(claim, there, experiments=tmp_path, source=source)
    return planned(claim, tmp_path / "here", seeds=seeds, source=source)


def names(runs, tmp_path):
    return set(recorded(runs, experiments=tmp_path))


def test_what_another_machine_finished_is_recorded_and_its_rows_stay_as_they_are(tmp_path):
    runs = made(TOY, tmp_path, seeds=3)
    assert names(runs, tmp_path) == {key_of(run) for run in runs}
    before = (tmp_path / "99_toy/results.csv").read_text()
    assert write_claim(TOY, runs, experiments=tmp_path, source=SOURCE) == "reproduced"
    assert (tmp_path / "99_toy/results.csv").read_text() == before


def test_other_code_another_configuration_and_what_is_finished_here_are_not(tmp_path):
    runs = made(TOY, tmp_path)
    assert names(planned(TOY, tmp_path / "here", source="otherothero1"), tmp_path) == set()
    changed = replace(
        TOY, methods=(replace(TOY.methods[0], changes={"controller.exploration": 0.2}), *TOY.methods[1:])
    )
    assert {method for _, method, _ in names(planned(changed, tmp_path / "here"), tmp_path)} == {
        "cheap",
        "dense",
    }
    fake_run(runs[0].job.folder, runs[0].job)
    assert names(runs, tmp_path) == {key_of(run) for run in runs[1:]}


def test_a_claim_takes_over_the_runs_that_it_shares_with_another(tmp_path):
    made(TRAINING, tmp_path)
    twin = replace(
        OTHER, methods=tuple(replace(method, name=f"{method.name}_here") for method in TOY.methods)
    )
    runs = planned(twin, tmp_path / "here")
    # The results of claims that are not this one's are looked for among the real claims alone: give it the
    # folder.
    (tmp_path / "01_srcd_main").mkdir(parents=True)
    (tmp_path / "99_toy/results.csv").rename(tmp_path / "01_srcd_main/results.csv")
    assert names(runs, tmp_path) == {key_of(run) for run in runs}
    write_claim(twin, runs, experiments=tmp_path, source=SOURCE)
    rows = load_rows(tmp_path / "98_other/results.csv")
    assert {row["method"] for row in rows} == {"cram_here", "cheap_here", "dense_here"}
    assert not any(COURSE_STEPS in row for row in rows)


def test_a_picture_of_training_takes_nothing_over_that_lacks_the_course(tmp_path):
    made(TOY, tmp_path)
    assert names(planned(TRAINING, tmp_path / "here"), tmp_path) == set()
    assert len(names(made(TRAINING, tmp_path), tmp_path)) == 6


def test_a_run_and_its_rival_are_recorded_together_or_not_at_all(tmp_path):
    dense = TOY.methods[-1]
    claim = replace(
        TOY,
        methods=(
            *TOY.methods[:-1],
            replace(dense, rival="scratch"),
            Method(name="scratch", title="scratch", changes={"task.length": 64}),
        ),
    )
    runs = made(claim, tmp_path, seeds=1)
    assert {method for _, method, _ in names(runs, tmp_path)} == {"cram", "cheap", "dense", "scratch"}
    fake_run(runs[-1].job.folder, runs[-1].job)
    assert {method for _, method, _ in names(runs, tmp_path)} == {"cram", "cheap"}


def test_a_run_of_other_code_that_lies_here_does_not_replace_what_is_recorded(tmp_path):
    runs = made(TOY, tmp_path, seeds=3)
    for old in planned(TOY, tmp_path / "here", seeds=3, source="otherothero1"):
        fake_run(old.job.folder, old.job, retrieval_accuracy=0.1)
    before = (tmp_path / "99_toy/results.csv").read_text()
    assert write_claim(TOY, runs, experiments=tmp_path, source=SOURCE) == "reproduced"
    assert (tmp_path / "99_toy/results.csv").read_text() == before


@pytest.mark.parametrize(
    "line", ["<<<<<<< HEAD", "mini,cram,0,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w"]
)
def test_damaged_results_of_any_claim_are_named(tmp_path, line):
    runs = made(TOY, tmp_path)
    file = tmp_path / "02_transition/results.csv"
    file.parent.mkdir()
    file.write_text((tmp_path / "99_toy/results.csv").read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"02_transition/results\.csv is damaged"):
        recorded(runs, experiments=tmp_path)


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_command_trains_only_what_is_not_recorded(monkeypatch, capsys, tmp_path, seeds):
    claim = CLAIMS["07_recurrence"]
    made(claim, tmp_path / "experiments", seeds=1, source=source_hash())
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["torchcram", "reproduce", claim.name, "--seeds", str(seeds), "--dry-run"]
    )
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr().out
    assert (said.count("recorded"), said.count("missing")) == (6, 6 * (seeds - 1))
    assert f"{6 * (seeds - 1)} processes to run" in said
    assert not Path("runs").exists()


def test_of_two_claims_that_hold_a_run_the_one_that_says_more_is_taken(tmp_path):
    made(TRAINING, tmp_path / "with_course")
    made(OTHER, tmp_path / "without")
    for made_in, folder in (
        ("with_course/99_toy", "01_srcd_main"),
        ("without/98_other", "02_transition"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / made_in / "results.csv").rename(tmp_path / folder / "results.csv")
    assert len(names(planned(TRAINING, tmp_path / "here"), tmp_path)) == 6
