"""Rows and verdicts: what a finished run says, what is kept of others, and that results of different code
are never mixed."""

import json
from dataclasses import replace

import pytest

from fake_runs import SOURCE, TOY, fake_run
from torchcram.reproduce.claim import Pair
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.plan import plan
from torchcram.reproduce.results import csv_text, load_rows, merged, row_of, rows_of
from torchcram.reproduce.status import grouped, paired, scale_record, status_of, status_record, verdicts


def toys(folder, *, seeds=2, source=SOURCE):
    return plan([TOY], scale="mini", seeds=seeds, runs=folder, source=source)


def trained(folder, *, seeds=2, source=SOURCE, **figures):
    runs = toys(folder, seeds=seeds, source=source)
    for run in runs:
        fake_run(run.job.folder, run.job, **figures)
    return runs


def test_there_is_one_row_a_run_with_the_fields_of_its_summary(tmp_path):
    rows = rows_of(trained(tmp_path))
    assert [(row["method"], row["seed"], row["scale"]) for row in rows] == [
        (name, seed, "mini") for seed in (0, 1) for name in ("cram", "cheap", "dense")
    ]
    assert rows[0]["retrieval_accuracy"] == 0.995
    assert rows[0]["source"] == SOURCE
    assert "run_dir" not in rows[0]


def test_rows_survive_the_file(tmp_path):
    rows = merged([], rows_of(trained(tmp_path)), claim=TOY, source=SOURCE)
    file = tmp_path / "results.csv"
    file.write_text(csv_text(rows))
    assert file.read_text().startswith("scale,method,seed,source,")
    assert load_rows(file) == [dict(row) for row in rows]
    assert load_rows(tmp_path / "none.csv") == []


def test_rows_of_other_scales_and_seeds_are_kept_and_those_of_other_configurations_dropped(tmp_path):
    demo = plan([TOY], scale="demo", seeds=1, runs=tmp_path, source=SOURCE)
    for run in demo:
        fake_run(run.job.folder, run.job)
    old = [*rows_of(trained(tmp_path / "a", seeds=2)), *rows_of(demo)]
    gone = [
        {**old[0], "method": "gone"},
        {**old[1], "config_hash": "000000000000"},
        {**old[2], "scale": "huge"},
    ]
    new = rows_of(trained(tmp_path / "b", seeds=1, retrieval_accuracy=0.5))
    both = merged([*gone, *old], new, claim=TOY, source=SOURCE)
    assert [(row["scale"], row["method"], row["seed"]) for row in both] == [
        *(("demo", name, 0) for name in ("cram", "cheap", "dense")),
        *(("mini", name, seed) for name in ("cram", "cheap", "dense") for seed in (0, 1)),
    ]
    assert [row["retrieval_accuracy"] for row in both if row["scale"] == "mini" and row["seed"] == 0] == [
        0.5
    ] * 3


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
    assert (record["status"], record["holes"]) == ("not", 9)
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


# The drift of the mini scale comes at step 100: lines every 10 steps.
BEFORE = (0.014,) * 11


@pytest.mark.parametrize(
    ("after", "peak", "recovery"),
    [
        ((0.015,) * 30, 0.015, None),
        ((0.1,) * 10 + (0.014,) * 20, 0.1, 150),
        ((0.1,) * 10 + (0.014,) * 20 + (0.05,), 0.1, 150),
        ((0.1,) * 30, 0.1, None),
    ],
)
def test_the_recovery_from_a_drift_is_read_off_the_metrics(tmp_path, after, peak, recovery):
    drifting = plan([CLAIMS["08_drift_override"]], scale="mini", seeds=1, runs=tmp_path, source=SOURCE)[0].job
    assert drifting.config.task.drift_at == 100
    fake_run(drifting.folder, drifting, rates=BEFORE + after)
    row = row_of(drifting.folder)
    assert row["drift_base_rate"] == pytest.approx(0.014)
    assert row["drift_peak_rate"] == pytest.approx(peak)
    # Ten high lines from step 110 on, the last at 200; it weighs in the average of 50 steps until 240.
    assert row["recovery_steps"] == recovery


def test_the_consolidation_curve_is_fitted_to_late_patterns_alone(tmp_path):
    job = plan([CLAIMS["05_consolidation_curve"]], scale="mini", seeds=1, runs=tmp_path, source=SOURCE)[0].job
    assert job.config.task.introduce_at == ((600, 30),)
    fake_run(job.folder, job)
    row = row_of(job.folder)
    # Too few of them came to the ninth bin, of 200 to 500 exposures.
    assert row["curve_reads"] == [15 * reads for reads in (90, 60, 40, 30, 20, 10, 8, 5)]
    assert row["curve_queries"] == [30 * 60] * 8
    assert 0.3 < row["exponent_low"] < row["exponent"] < row["exponent_high"] < 1.0
    assert row["aic_exponential_less_power"] > 0
    assert row["curve_best"] == "power"


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


def test_every_run_of_srcd_is_held_against_the_bound_on_static_routing(tmp_path):
    row = rows_of(trained(tmp_path, seeds=1))[0]
    # 6 of 128 steps query; a rate of 0.015 reads for 32% of them, and one of 16 guesses is right.
    assert row["static_bound"] == pytest.approx(0.32 + 0.68 / 16)
    assert row["above_static_bound"] == pytest.approx(0.995 - row["static_bound"])


def transferred(folder, *, levels, source=SOURCE):
    """Runs of one unseen task: evaluations of both, (accuracy, keys) after each."""
    claim = CLAIMS["04_transfer"]
    wanted = replace(claim, methods=tuple(claim.method(name) for name in levels))
    runs = plan([wanted], scale="mini", seeds=1, runs=folder, source=source)
    for run in runs:
        fake_run(run.job.folder, run.job, retrieval_accuracy=0.9)
        records = [
            {"kind": "eval", "step": 20 * index, "accuracy": {"query": accuracy}, "keys_computed": keys}
            for index, (accuracy, keys) in enumerate(levels[run.method.name])
        ]
        (run.job.folder / "metrics.jsonl").write_text(
            "".join(json.dumps(record) + "\n" for record in records)
        )
    return runs


# 99% of 0.9 is 0.891.
SCRATCH = [(0.5, 100), (0.89, 200), (0.892, 400), (0.9, 800)]


@pytest.mark.parametrize(
    ("frozen", "keys", "share"),
    [([(0.895, 40), (0.9, 80)], 40, 0.9), ([(0.6, 40), (0.95, 600)], 600, -0.5), ([(0.6, 40)], None, None)],
)
def test_a_transferred_run_is_measured_by_the_keys_until_the_accuracy_from_scratch(
    tmp_path, frozen, keys, share
):
    ours, theirs = rows_of(
        transferred(tmp_path, levels={"readout_frozen": frozen, "readout_scratch": SCRATCH})
    )
    assert (ours["keys_to_match"], ours["keys_of_rival"]) == (keys, 400)
    assert ours["keys_saved"] == (None if share is None else pytest.approx(share))
    assert ours["reads_saved"] == 0.0
    assert "keys_saved" not in theirs


def test_a_transferred_run_is_not_measured_against_other_code_or_nothing(tmp_path):
    levels = {"readout_frozen": [(0.9, 40)], "readout_scratch": SCRATCH}
    runs = transferred(tmp_path, levels=levels)
    file = runs[1].job.folder / "environment.json"
    file.write_text(json.dumps({"source": "otherothero1"}))
    assert "keys_saved" not in rows_of(runs)[0]
    assert "keys_saved" not in rows_of(runs[:1])[0]


def test_runs_without_a_drift_have_no_such_figures(tmp_path):
    row = rows_of(trained(tmp_path, seeds=1))[0]
    assert not {"recovery_steps", "exponent", "curve_reads"} & set(row)
