"""What happened in a run, told in a few plain sentences that are computed from its numbers, and its state:
finished or not.

No sentence is written about a figure that the run does not have.
"""

from __future__ import annotations

from collections.abc import Callable

from torchcram.report.certificate import certificate
from torchcram.report.fits import detect_transition
from torchcram.report.records import RunRecord, series
from torchcram.report.wording import count, duration, factor, percent, times


def story(record: RunRecord) -> list[str]:
    """Return the sentences, most important first; possibly none."""
    sentences = [
        _reads(record),
        _answers(record),
        _transition(record),
        _causes(record),
        certificate(record.calibration or {}),
        _cost(record),
        _run(record),
    ]
    return [sentence for sentence in sentences if sentence]


def unfinished_message(record: RunRecord) -> str:
    """Return why the figures are provisional, or an empty string for a finished run."""
    if record.summary is not None:
        return ""
    planned = (record.config.get("training") or {}).get("steps")
    until = f"of {count(planned)} planned steps" if isinstance(planned, int) else "so far"
    torn = " Its last record was cut off and is left out." if record.torn else ""
    return (
        "This run is unfinished: it has no summary, and its records end at step "
        f"{count(record.last_step)} {until}. All figures are provisional.{torn}"
    )


def tiles(record: RunRecord) -> list[tuple[str, str, str]]:
    """Return the key figures as (figure, what it is, what to hold it against)."""
    floor, share_floor = record.floor("any_layer_floor"), record.floor("attention_share_floor")
    wanted: list[tuple[str, str, Callable[[float], str], str]] = [
        (
            "any_layer_read_rate",
            "of the steps read",
            percent,
            "" if floor is None else f"floor {percent(floor)}",
        ),
        (
            "attention_share",
            "of dense attention's keys scanned",
            percent,
            "" if share_floor is None else f"floor {percent(share_floor)}",
        ),
        ("retrieval_accuracy", "of the queries answered correctly", percent, ""),
        ("reduction_any_layer", "fewer reads than at the peak", factor, ""),
    ]
    given = record.summary or {}
    return [
        (write(given[name]), label, note)
        for name, label, write, note in wanted
        if given.get(name) is not None
    ]


def _reads(record: RunRecord) -> str:
    rate, final = series(record.train, "any_layer_read_rate")[1], record.final("any_layer_read_rate")
    if not len(rate) or final is None:
        return ""
    peak = float(rate.max())
    if final >= peak:
        return (
            f"The model reads its key-value memory at {percent(final)} of the steps, as much as ever: "
            "reads did not fall."
        )
    less = f", {times(peak / final)} less often" if final > 0 else ""
    return (
        f"The model first read its key-value memory at {percent(peak)} of the steps, and in the end "
        f"at {percent(final)}{less}.{_against_floor(record, final)}"
    )


def _against_floor(record: RunRecord, final: float) -> str:
    floor = record.floor("any_layer_floor")
    if not floor:
        return ""
    oracle = (
        f" An oracle that knows every recurring pattern by heart would still have to read at {percent(floor)}"
    )
    return f"{oracle}: the model reads {times(final / floor)} as often."


def _answers(record: RunRecord) -> str:
    total = record.final("retrieval_accuracy", "accuracy", "query")
    if total is None:
        return ""
    kinds = {
        kind: record.final(f"{kind}_accuracy", "accuracy", kind)
        for kind in ("recurring", "novel", "overridden")
    }
    parts = ", ".join(
        f"{percent(share)} of the {kind} ones" for kind, share in kinds.items() if share is not None
    )
    return f"It answers {percent(total)} of the queries correctly" + (f" ({parts})." if parts else ".")


def _transition(record: RunRecord) -> str:
    transition = detect_transition(*series(record.train, "any_layer_read_rate"))
    if transition is None:
        return ""
    phase = [phase.name for phase in record.phases if phase.start <= transition.step <= phase.stop]
    where = f", in the phase {phase[-1]!r}" if phase else ""
    fall = f"from {percent(transition.before)} to {percent(transition.after)} of the steps"
    return f"Its reads fell most sharply around step {count(transition.step)}{where}: {fall}."


def _causes(record: RunRecord) -> str:
    summary = record.summary or {}
    need, consolidation = summary.get("reduction_need"), summary.get("reduction_consolidation")
    if need is None or consolidation is None:
        return ""
    return (
        f"Two things make up the reduction: most steps need no retrieval at all ({factor(need)}), "
        f"and queries for recurring patterns are answered from parameters ({factor(consolidation)})."
    )


def _cost(record: RunRecord) -> str:
    share = (record.summary or {}).get("training_attention_share")
    return (
        ""
        if share is None
        else (
            f"Getting there cost {percent(share)} of the attention that dense training would have "
            "cost, every read counted."
        )
    )


def _run(record: RunRecord) -> str:
    summary = record.summary or {}
    if summary.get("seconds") is None:
        return ""
    parameters = summary.get("parameters")
    size = "" if parameters is None else f" for a model of {count(parameters)} parameters"
    return f"The run took {duration(summary['seconds'])}{size}, {count(record.last_step)} steps."
