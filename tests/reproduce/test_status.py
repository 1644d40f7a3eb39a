"""Verdicts: every seed counts, and results of different code are never mixed."""

import json
from dataclasses import replace

import pytest

from fake_runs import SOURCE, TOY, fake_run, toys, trained
from torchcram.reproduce.claim import Pair
from torchcram.reproduce.results import merged, rows_of
from torchcram.reproduce.status import grouped, paired, scale_record, status_of, status_record, verdicts


def test_a_claim_is_reproduced_if_every_seed_meets_every_goal(tmp_path):
    groups = grouped(rows_of(trained(tmp_path)), scale="mini", source=SOURCE)
    assert [(verdict.met, verdict.seeds) for verdict in verdicts(TOY, groups, scale="mini")] == [
        (2, 2),
        (2, 2),
    ]
    assert status_of(TOY, groups, scale="mini", seeds=2) == "reproduced"
    assert status_of(TOY, groups, scale="mini", seeds=3) == "partly"
    assert status_of(replace(TOY, goals=()), groups, scale="mini", seeds=2) == "measured"


@pytest.mark.parametrize(
    ("figures", "status"),
    [
        ({"retrieval_accuracy": 0.98}, "partly"),
        ({"retrieval_accuracy": 0.98, "any_layer_read_rate": 0.5}, "not"),
    ],
)
def test_one_seed_that_misses_a_goal_is_enough_to_miss_it(tmp_path, figures, status):
    runs = trained(tmp_path, seeds=1)
    miss = toys(tmp_path, seeds=2)[3]
    assert (miss.method.name, miss.seed) == ("cram", 1)
    fake_run(miss.job.folder, miss.job, **figures)
    groups = grouped(rows_of([*runs, miss]), scale="mini", source=SOURCE)
    assert verdicts(TOY, groups, scale="mini")[0].met == 1
    assert status_of(TOY, groups, scale="mini", seeds=1) == status


def test_results_of_different_code_are_never_averaged(tmp_path):
    old = rows_of(trained(tmp_path / "a", source="otherothero1", retrieval_accuracy=0.1))
    fresh = rows_of(trained(tmp_path / "b", seeds=1))
    assert {row["source"] for row in fresh} == {SOURCE}
    groups = grouped(merged(old, fresh, claim=TOY, source=SOURCE), scale="mini", source=SOURCE)
    assert [len(group.rows) for group in groups.values()] == [1, 1, 1]
    assert groups["cram"].spread("retrieval_accuracy") == {
        "mean": 0.995,
        "least": 0.995,
        "greatest": 0.995,
        "runs": 1,
    }


def test_stale_results_alone_are_marked_and_meet_no_goal(tmp_path):
    trained(tmp_path, source="otherothero1")
    rows = rows_of(toys(tmp_path))
    record = scale_record(TOY, rows, scale="mini", source=SOURCE)
    assert (record["status"], record["holes"]) == ("stale", 9)
    assert all(figures["stale"] for figures in record["figures"].values())
    assert [goal["seeds"] for goal in record["goals"]] == [0, 0]


def test_the_status_is_that_of_the_largest_scale_measured(tmp_path):
    record = scale_record(TOY, rows_of(trained(tmp_path)), scale="mini", source=SOURCE)
    assert record["figures"]["cram"]["retrieval_accuracy"] == {
        "mean": 0.995,
        "least": 0.995,
        "greatest": 0.995,
        "runs": 2,
    }
    assert "transition_step" not in record["figures"]["cram"]
    whole = status_record(
        TOY,
        {
            "demo": {**record, "status": "partly"},
            "mini": record,
            "full": {**record, "figures": {}, "status": "not"},
        },
    )
    assert (whole["claim"], whole["status"], list(whole["scales"])) == ("99_toy", "partly", ["mini", "demo"])
    json.dumps(whole, allow_nan=False)
    whole = status_record(TOY, {"mini": record, "full": {**record, "status": "stale"}})
    assert (whole["status"], list(whole["scales"])) == (record["status"], ["mini", "full"])


def test_differences_are_taken_seed_by_seed_of_fresh_rows_alone(tmp_path):
    rows = rows_of(trained(tmp_path))
    for row in rows:
        row["retrieval_accuracy"] = {"cram": 0.99, "cheap": 0.9 + 0.01 * row["seed"], "dense": 1.0}[
            row["method"]
        ]
    pair = Pair(ours="cram", theirs=("cheap",), figures=("retrieval_accuracy", "transition_step"))
    assert paired(pair, "cheap", grouped(rows, scale="mini", source=SOURCE)) == {
        "retrieval_accuracy": pytest.approx([0.09, 0.08]),
        "transition_step": [],
    }
    only = [row for row in rows if row["method"] == "cram" or row["seed"] == 1]
    assert paired(pair, "cheap", grouped(only, scale="mini", source=SOURCE))[
        "retrieval_accuracy"
    ] == pytest.approx([0.08])
    assert (
        paired(pair, "cheap", grouped(rows, scale="mini", source="otherothero1"))["retrieval_accuracy"] == []
    )
