"""What calibration certified, in a few plain sentences."""

from __future__ import annotations

from typing import Any

from torchcram.report.wording import count, percent

# What an answer must do to count, by the reference; runs from before there was a choice compared with all
# reads.
COUNTED = {
    "cautious": "differ from those with a read for every token in need",
    "labels": "are wrong",
    "all reads": "differ from those with every read",
}


def certificate(calibration: dict[str, Any]) -> str:
    """Return what was certified, at what cost, and what would allow one step further; empty for a record
    without a choice.
    """
    if "threshold_shift" not in calibration or "empirical_risk" not in calibration:
        return ""
    if not _certified(calibration):
        return (
            f"{count(calibration['sequences'])} calibration sequences certify no threshold for a risk of "
            f"{percent(calibration['risk_tolerance'])}. The most cautious one was taken. With it, "
            f"{percent(calibration['empirical_risk'])} of their answers {_counted(calibration)}."
        )
    return " ".join(filter(None, (_promise(calibration), _choice(calibration), _next(calibration))))


def _certified(calibration: dict[str, Any]) -> bool:
    sequences = calibration["sequences"]
    bound = (sequences * calibration["empirical_risk"] + 1) / (sequences + 1)
    return bool(calibration.get("certified", bound <= calibration["risk_tolerance"]))


def _counted(calibration: dict[str, Any]) -> str:
    return COUNTED[calibration.get("reference", "all reads")]


def _promise(calibration: dict[str, Any]) -> str:
    confidence = calibration.get("confidence")
    how = "In expectation" if confidence is None else f"With a confidence of {percent(confidence)}"
    return (
        f"{how}, at most {percent(calibration['risk_tolerance'])} of the answers {_counted(calibration)}: "
        f"{count(calibration['sequences'])} calibration sequences certify it."
    )


def _choice(calibration: dict[str, Any]) -> str:
    skipped = calibration.get("skipped_share")
    if skipped is None:
        return "These sequences held no read that could be skipped."
    if skipped == 0:
        return "No threshold that skips a read could be certified, so that every token in need reads."
    return (
        f"The familiarity thresholds moved by {calibration['threshold_shift']:+.2f} logits. There "
        f"{percent(calibration['empirical_risk'])} of their answers {_counted(calibration)}, and "
        f"{percent(skipped)} of the reads that could be skipped are."
    )


def _next(calibration: dict[str, Any]) -> str:
    risk, further = calibration.get("next_risk"), calibration.get("further_sequences")
    if risk is None:
        return ""
    told = f"One step further the risk would be {percent(risk)}"
    if further is None:
        return f"{told}, which no number of sequences certifies."
    return f"{told}, which {count(further)} more sequences (evaluation.calibration_sequences) would certify."
