"""Tuning, the same for every method: a few trials of a few minutes, on the validation part of split 0 alone. Needs the extra ``tune``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchcram.comparison.methods import Method
from torchcram.comparison.problems import Problem
from torchcram.comparison.scores import scores
from torchcram.strict import optional

TRIALS, LIMIT = 8, 300.0
# The split whose validation part judges the trials.
SPLIT = 0


def tune(method: Method, problem: Problem, *, journal: Path, trials: int = TRIALS, limit: float = LIMIT, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the finished trials, the best one first: ``parameters, score, seconds``.

    Args:
        method: what to tune.
        problem: on what.
        journal: file that keeps the trials; those of an interrupted tuning are not repeated.
        trials: how many in all.
        limit: seconds of training in each.
        say: takes a line a trial.
    """
    optuna = optional("optuna", extra="tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(optuna, journal)
    if not study.trials:
        study.enqueue_trial(method.starting(problem))

    def objective(trial: Any) -> float:
        begin, parameters = time.monotonic(), method.drawn(trial, problem)
        fitted = method.fit(problem, SPLIT, parameters, seed=0, limit=limit)
        score = scores(fitted.judge("validation"))[problem.goal]
        trial.set_user_attr("parameters", parameters)
        trial.set_user_attr("seconds", time.monotonic() - begin)
        say(f"trial {trial.number}: {problem.goal} {score:.4f} on validation data, with {parameters}")
        return score

    study.optimize(objective, n_trials=max(0, trials - len(_finished(study))))
    found = [{"parameters": one.user_attrs["parameters"], "score": one.value, "seconds": one.user_attrs["seconds"]} for one in _finished(study)]
    return sorted(found, key=lambda one: -one["score"])


def _study(optuna: Any, journal: Path) -> Any:
    journal.parent.mkdir(parents=True, exist_ok=True)
    backend = optional("optuna.storages.journal", extra="tune").JournalFileBackend(str(journal))
    # Each resumption draws on from where the sampler would stand after as many trials, not from its start.
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(study_name="tuning", storage=storage, direction="maximize", load_if_exists=True)
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), n_startup_trials=4)
    return study


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.value is not None]
