"""The route map of one test stay beside its measurements: which memory answered each step, and what was
measured then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from torchcram.series.comparison.neural import Neural
from torchcram.series.comparison.problems import PhysioNetProblem, Problem
from torchcram.series.task import SeriesTask
from torchcram.training.evaluate import route_map

# What most stays have measured, and people know.
SHOWN = ("HR", "MAP", "Temp", "GCS", "Urine", "Creatinine", "Lactate")
MINUTES = 60.0


def patient_map(problem: Problem, fitted: Neural) -> dict[str, Any] | None:
    """Return routes and measurements of one test stay; None for a problem without stays.

    The stay is not chosen by what its map looks like: of those who died it is the one whose number of steps
    is the median, the first of several.
    """
    if not isinstance(problem, PhysioNetProblem):
        return None
    rows = problem.data.split(fitted.number).test
    died = [place for place, row in enumerate(rows) if problem.data.death[row]]
    task = fitted.tasks["test"]
    assert isinstance(task, SeriesTask)
    lengths = [len(task.series[place].gap) for place in died]
    place = died[int(np.argsort(lengths, kind="stable")[len(died) // 2])]
    routing = route_map(fitted.model, task.rows([place]), control=fitted.control)
    series = problem.data.series()[int(rows[place])]
    columns = {name: series.values[:, problem.data.names.index(name)] for name in SHOWN}
    shown = {
        name: (series.time[~np.isnan(column)] / MINUTES, column[~np.isnan(column)])
        for name, column in columns.items()
    }
    return {
        "record": int(problem.data.record[rows[place]]),
        "hours": (series.time / MINUTES).tolist(),
        "routes": routing["routes"],
        "measured": {
            name: {"hours": hours.tolist(), "values": values.tolist()}
            for name, (hours, values) in shown.items()
        },
    }
