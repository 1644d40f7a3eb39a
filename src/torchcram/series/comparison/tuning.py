"""Tuning, the same for every method: a few trials of a few minutes, on the validation part of split 0 alone.

Needs the extra ``tune``.

What has a price of a read can be as good as it likes by reading: of such a method the best trial is sought
among those that read little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchcram.series.comparison.methods import Method
from torchcram.series.comparison.problems import Problem
from torchcram.series.comparison.scores import scores
from torchcram.strict import optional

TRIALS, LIMIT = 8, 300.0
# Attention share up to which the trials of a method with a price are its candidates.
MOST_SHARE = 0.1
# The split whose validation part judges the trials.
SPLIT = 0


def tune(
    method: Method,
    problem: Problem,
    *,
    journal: Path,
    trials: int = TRIALS,
    limit: float = LIMIT,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Return the finished trials, the best one first: ``parameters, score, seconds``, and of neural methods
    ``steps`` and ``attention_share``.

    Trials that read too much, of a method with a price, come after all others, and those that read least
    before those that read more.

    Args:
        method: what to tune.
        problem: on what.
        journal: file that keeps the trials; those of an interrupted tuning are not repeated.
        trials: how many in all.
        limit: seconds of training in each.
        say: takes a line a trial.

    Raises:
        ValueError: if no trial came to an end: every one diverged.
    """
    optuna = optional("optuna", extra="tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(optuna, journal)
    if not any(trial.value is not None or trial.state.name == "WAITING" for trial in study.trials):
        study.enqueue_trial(method.starting(problem))

    def objective(trial: Any) -> float:
        return _tried(trial, method, problem, limit=limit, say=say)

    # A trial that diverges is one that failed: the others go on.
    study.optimize(objective, n_trials=max(0, trials - len(_finished(study))), catch=(FloatingPointError,))
    tried = [{**one.user_attrs, "score": one.value} for one in _finished(study)]
    if not tried:
        raise ValueError(f"{method.title}: every trial diverged; see the log, and narrow what is drawn")
    return sorted(tried, key=lambda one: (_excess(method, one["attention_share"]), -one["score"]))


def _tried(
    trial: Any, method: Method, problem: Problem, *, limit: float, say: Callable[[str], None]
) -> float:
    """Train with what a trial draws; note what came out in the trial, and return its score."""
    begin, parameters = time.monotonic(), method.drawn(trial, problem)
    fitted = method.fit(problem, SPLIT, parameters, seed=0, limit=limit)
    outcome = fitted.judge("validation")
    score = scores(outcome)[problem.goal]
    told = {
        "parameters": parameters,
        "seconds": time.monotonic() - begin,
        "steps": getattr(fitted, "steps", None),
        "attention_share": outcome.attention_share,
    }
    for name, value in told.items():
        trial.set_user_attr(name, value)
    trial.set_constraint("reads", _excess(method, outcome.attention_share))
    say(f"trial {trial.number}: {problem.goal} {score:.4f} on validation data, with {parameters}")
    return score


def _excess(method: Method, attention_share: float | None) -> float:
    """Return by how much a trial reads more than it may; what has no price may read everything."""
    return max(0.0, attention_share - MOST_SHARE) if method.priced and attention_share is not None else 0.0


def _study(optuna: Any, journal: Path) -> Any:
    journal.parent.mkdir(parents=True, exist_ok=True)
    backend = optional("optuna.storages.journal", extra="tune").JournalFileBackend(str(journal))
    # Each resumption draws on from where the sampler would stand after as many trials, not from its start.
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(
        study_name="tuning", storage=storage, direction="maximize", load_if_exists=True
    )
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), n_startup_trials=4)
    return study


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.value is not None]
