"""What calibration certified, word by word."""

from dataclasses import asdict

import torch

from planted_risks import curve_of, planted
from torchcram.calibration.choice import choose_shift
from torchcram.calibration.rule import Rule
from torchcram.report.certificate import certificate

CHOSEN = {
    "risk_tolerance": 0.003,
    "bound": "mean",
    "confidence": None,
    "reference": "cautious",
    "certified": True,
    "threshold_shift": 0.155,
    "empirical_risk": 0.0012,
    "skipped_share": 0.971,
    "sequences": 600,
    "next_risk": 0.0016,
    "further_sequences": 113,
}


def test_a_certificate_tells_the_promise_the_choice_and_the_next_step():
    assert certificate(CHOSEN) == (
        "In expectation, at most 0.3% of the answers differ from those with a read for every token in need: "
        "600 calibration sequences certify it. The familiarity thresholds moved by +0.15 logits. There 0.12% "
        "of their answers differ from those with a read for every token in need, and 97.1% of the reads that "
        "could be skipped are. One step further the risk would be 0.16%, which 113 more sequences "
        "(evaluation.calibration_sequences) would certify."
    )


def test_betting_tells_its_confidence():
    assert certificate(CHOSEN | {"bound": "betting", "confidence": 0.95}).startswith(
        "With a confidence of 95%, at most 0.3% of the answers differ"
    )


def test_a_choice_that_skips_nothing_says_so():
    told = certificate(CHOSEN | {"skipped_share": 0.0, "empirical_risk": 0.0, "further_sequences": None})
    assert "No threshold that skips a read could be certified, so that every token in need reads." in told
    assert told.endswith("One step further the risk would be 0.16%, which no number of sequences certifies.")
    assert "held no read that could be skipped" in certificate(CHOSEN | {"skipped_share": None})


def test_what_is_not_certified_is_not_called_so():
    assert certificate(CHOSEN | {"certified": False, "reference": "labels", "empirical_risk": 0.02}) == (
        "600 calibration sequences certify no threshold for a risk of 0.3%. The most cautious one was taken. "
        "With it, 2% of their answers are wrong."
    )


def test_the_last_shift_has_no_next_one():
    assert "One step further" not in certificate(CHOSEN | {"next_risk": None, "further_sequences": None})


def test_a_record_of_before_compared_with_all_reads():
    """It has no reference, and need not have certified what it chose."""
    former = {
        "risk_tolerance": 0.005,
        "threshold_shift": 8.0,
        "empirical_risk": 0.0013,
        "skipped_share": 0.0,
        "sequences": 260,
        "curve": [],
    }
    told = certificate(former)
    assert told.startswith("260 calibration sequences certify no threshold for a risk of 0.5%.")
    assert told.endswith("With it, 0.13% of their answers differ from those with every read.")
    assert "In expectation" in certificate(former | {"empirical_risk": 0.0001})
    assert certificate({}) == ""


def test_every_choice_can_be_told():
    for rule in (Rule(risk_tolerance=0.05), Rule(risk_tolerance=0.05, bound="betting")):
        assert "certify it" in certificate(asdict(choose_shift(planted(300, seed=0), rule)))
    lost = choose_shift(curve_of(torch.ones(30, 1), (2.0,)), Rule(risk_tolerance=0.1), reference="labels")
    assert "certify no threshold" in certificate(asdict(lost))
