import json
from pathlib import Path

import torch

from torchcram.calibration import RiskCurve, choose_shift
from torchcram.report.records import load_record
from torchcram.report.story import story, tiles, unfinished_message


def test_the_story_tells_what_happened(run_dir: Path):
    told = story(load_record(run_dir))
    assert told[0].startswith(
        "The model first read its key-value memory at 100% of the steps, and in the end at 1.52%, "
        "65.8 times less often."
    )
    assert told[0].endswith("would still have to read at 1.41%: the model reads 1.08 times as often.")
    assert told[1] == (
        "It answers 99.85% of the queries correctly (99.99% of the recurring ones, 99.51% of the novel ones)."
    )
    assert told[2].startswith(
        "Its reads fell most sharply around step 900, in the phase 'consolidate': from 100% to "
    )
    assert "(20.0x)" in told[3]
    assert "(3.29x)" in told[3]
    assert "41.2% of the attention" in told[4]
    assert told[5] == "The run took 7 min 17 s for a model of 148,122 parameters, 2,400 steps."


def test_nothing_is_told_about_figures_that_are_absent(run_dir: Path, rewrite):
    (run_dir / "summary.json").write_text("{}")
    rewrite(run_dir, lambda line: {"kind": line["kind"], "step": line["step"], "task_loss": 1.0})
    record = load_record(run_dir)
    assert (story(record), tiles(record), unfinished_message(record)) == ([], [], "")


def test_reads_that_did_not_fall_are_not_praised(run_dir: Path, rewrite):
    (run_dir / "summary.json").write_text('{"any_layer_read_rate": 1.0}')
    rewrite(
        run_dir, lambda line: {**line, "any_layer_read_rate": 1.0} if "any_layer_read_rate" in line else line
    )
    told = " ".join(story(load_record(run_dir)))
    assert "reads did not fall" in told
    assert "sharply" not in told


def test_a_rate_of_zero_is_no_infinite_praise(run_dir: Path, summary: dict):
    (run_dir / "summary.json").write_text(json.dumps({**summary, "any_layer_read_rate": 0.0}))
    assert "and in the end at 0%. An oracle" in story(load_record(run_dir))[0]


def test_tiles_hold_the_key_figures(run_dir: Path):
    assert [(figure, note) for figure, _, note in tiles(load_record(run_dir))] == [
        ("1.52%", "floor 1.41%"),
        ("0.86%", "floor 0.8%"),
        ("99.85%", ""),
        ("65.8x", ""),
    ]


def test_an_unfinished_run_says_so_and_how_far_it_came(run_dir: Path, rewrite):
    assert unfinished_message(load_record(run_dir)) == ""
    (run_dir / "summary.json").unlink()
    rewrite(run_dir, lambda line: line if line["step"] <= 1200 else None)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    message = unfinished_message(load_record(run_dir))
    assert "unfinished" in message
    assert "step 1,200 of 2,400 planned steps" in message
    assert "cut off" in message


def _calibrated(run_dir: Path, *, shift: float, risk: float, least: float = 0.0001) -> str:
    """Return the story of a run that chose a shift on 260 sequences, where the two most cautious
    thresholds have these risks."""
    curve = [[8.0, least, 0.0], [1.5, risk, 0.9964], [1.1, 2 * risk, 0.9983]]
    chosen = {
        "risk_tolerance": 0.005,
        "threshold_shift": shift,
        "empirical_risk": least,
        "skipped_share": 0.0,
        "sequences": 260,
        "curve": curve,
    }
    (run_dir / "calibration.json").write_text(json.dumps(chosen))
    return " ".join(story(load_record(run_dir)))


def _risks(*risks: float, sequences: int) -> RiskCurve:
    losses = torch.tensor(risks, dtype=torch.float64).expand(sequences, -1)
    return RiskCurve(shifts=(8.0, 1.5)[: len(risks)], losses=losses, skipped=torch.zeros_like(losses))


def test_a_threshold_that_could_not_be_certified_is_told_with_what_would_help(run_dir: Path):
    told = _calibrated(run_dir, shift=8.0, risk=0.0015)
    assert (
        "260 calibration sequences could certify no threshold but the most cautious one, at a "
        "risk of 0.5%: it was taken, and skips 0% "
    ) in told
    assert "The next one changes 0.15% of the answers, which takes 285 sequences" in told
    # It is the least number with which calibration itself would choose that threshold.
    chosen = [
        choose_shift(_risks(0.0001, 0.0015, sequences=count), risk_tolerance=0.005).threshold_shift
        for count in (284, 285)
    ]
    assert chosen == [8.0, 1.5]


def test_the_most_cautious_threshold_is_not_called_certified_where_it_is_not(run_dir: Path):
    assert (260 * 0.0013 + 1) / 261 > 0.005 > (260 * 0.0001 + 1) / 261
    assert "could certify no threshold, not even the most cautious one, at a risk of 0.5%" in _calibrated(
        run_dir, shift=8.0, risk=0.0015, least=0.0013
    )


def test_a_curve_that_ends_at_once_has_no_next_threshold(run_dir: Path):
    chosen = {
        "risk_tolerance": 0.003,
        "threshold_shift": 8.0,
        "empirical_risk": 0.0035,
        "skipped_share": 0.0,
        "sequences": 600,
        "curve": [[8.0, 0.0035, 0.0]],
    }
    (run_dir / "calibration.json").write_text(json.dumps(chosen))
    told = " ".join(story(load_record(run_dir)))
    assert "not even the most cautious one" in told
    assert "It alone changes 0.35% of the answers." in told
    assert "next one" not in told


def test_no_number_of_sequences_certifies_a_risk_above_the_tolerance(run_dir: Path):
    told = _calibrated(run_dir, shift=8.0, risk=0.01)
    assert "The next one changes 1% of the answers." in told
    assert "to certify" not in told


def test_a_threshold_that_skips_is_not_worth_a_word(run_dir: Path):
    assert "calibration sequences" not in _calibrated(run_dir, shift=1.5, risk=0.0002)
