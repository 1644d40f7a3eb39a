"""Figures that are made of a run's files: drift, consolidation curve, the bound, what was spared."""

import json
from dataclasses import replace

import pytest

from fake_runs import SOURCE, fake_run, trained
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.plan import plan
from torchcram.reproduce.results import row_of, rows_of

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
