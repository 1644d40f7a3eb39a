"""The course of a claim's own method above its frontier: runs, their mean, the floor, the evaluated rate."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fake_runs import SOURCE, TOY, trained
from torchcram.reproduce.claim import Goal, Picture
from torchcram.reproduce.claim_figures import claim_figure
from torchcram.reproduce.results import csv_text, load_rows, rows_of
from torchcram.reproduce.run_figures import COURSE_STEPS, COURSE_VALUES
from torchcram.reproduce.status import grouped

PICTURE = Picture(kind="frontier", title="Falls", course=("cram", "dense"))
CLAIM = replace(TOY, picture=PICTURE)


@pytest.fixture
def rows(tmp_path) -> list[dict]:
    planned = [replace(run, claim=CLAIM) for run in trained(tmp_path, seeds=2)]
    file = tmp_path / "results.csv"
    file.write_text(csv_text(rows_of(planned)))
    return load_rows(file)


def figure_of(rows, claim=CLAIM):
    return claim_figure(claim, grouped(rows, scale="mini", source=SOURCE))


def test_only_the_methods_of_the_course_keep_it(rows):
    kept = {row["method"] for row in rows if row.get(COURSE_STEPS)}
    assert kept == {"cram", "dense"}


def test_runs_are_thin_lines_and_their_mean_a_bold_one(rows):
    for row in rows:
        if row["method"] == "cram":
            row[COURSE_VALUES] = [value * (1 + row["seed"]) for value in row[COURSE_VALUES]]
    above, below = figure_of(rows).axes
    (mean,) = [line for line in above.lines if line.get_label() == "CRAM"]
    thin = [line for line in above.lines if line.get_color() == mean.get_color() and line is not mean]
    assert len(thin) == 2
    assert mean.get_ydata() == pytest.approx(np.mean([line.get_ydata() for line in thin], 0))
    assert mean.get_linewidth() > 2 * thin[0].get_linewidth()
    assert {line.get_label() for line in above.lines} >= {"CRAM", "dense"}
    assert below.get_xlabel() == "any layer read rate"


def test_floor_evaluated_rate_and_end_of_acquisition_are_said(rows):
    for row in rows:
        row["acquired_at"] = 10
    above, _ = figure_of(rows).axes
    words = [text.get_text().strip() for text in above.texts]
    assert {"evaluated 1.5%", "floor 1.4%", "acquire", "consolidate"} <= set(words)


def test_without_a_course_there_is_the_frontier_alone(rows):
    others = [row for row in rows if row["method"] != "cram"]
    assert len(figure_of(others).axes) == 1
    assert len(figure_of(rows, replace(CLAIM, picture=replace(PICTURE, course=()))).axes) == 1


def test_a_row_says_its_commit_and_what_its_calibration_certified(tmp_path):
    planned = trained(tmp_path, seeds=1)
    folder = planned[0].job.folder
    (folder / "environment.json").write_text(json.dumps({"source": SOURCE, "commit": "abc1234"}))
    (folder / "calibration.json").write_text(json.dumps({"certified": True, "skipped_share": 0.75}))
    first, second, *_ = rows_of(planned)
    assert (first["commit"], first["certified"], first["certified_skipped_share"]) == ("abc1234", 1, 0.75)
    assert "certified" not in second


def test_a_goal_may_be_asked_for_at_one_scale_alone():
    late = Goal(method="cram", figure="certified", sign=">=", number=1, scales=("demo",))
    claim = replace(TOY, goals=(*TOY.goals, late))
    assert late not in claim.goals_at("mini")
    assert late in claim.goals_at("demo")
    assert claim.goals_at("mini") == TOY.goals
