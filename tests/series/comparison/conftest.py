"""Problems made of small data of the two published kinds."""

import pytest

from small_series import small_activity, small_physionet
from torchcram.series.comparison.problems import ActivityProblem, PhysioNetProblem


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


class SmallActivity(ActivityProblem):
    """Windows that fit into short recordings."""

    steps, sequences = 4, 4

    def tasks(self, number, *, encoder, hide, lessons):
        del encoder, hide, lessons
        return self.data.tasks(number, steps=16, keep=0.5)


@pytest.fixture
def physionet() -> PhysioNetProblem:
    problem = PhysioNetProblem(small_physionet())
    problem.steps, problem.sequences = 4, 8
    return problem


@pytest.fixture
def activity() -> SmallActivity:
    return SmallActivity(small_activity())
