"""Trackers are told every number of the metrics under one rule of names."""

import math
from typing import ClassVar

import pytest
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from torchcram.runs import trackers
from torchcram.runs.run_dir import RunDir
from torchcram.runs.trackers import flat, require_trackers, track, tracked
from torchcram.strict import MissingExtraError, StrictConfig


class Inner(StrictConfig):
    pairs: tuple[tuple[int, int], ...] = ((0, 8),)
    start: str | None = None


class Settings(StrictConfig):
    name: str = "mini"
    rate: float = 0.5
    inner: Inner = Inner()


class Notebook(GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "notebook"
    requires_logging_directory = False
    main_process_only = True
    opened: ClassVar[list["Notebook"]] = []

    def __init__(self, project: str):
        super().__init__()
        self.project, self.config, self.lines, self.finished = project, None, [], 0
        self.opened.append(self)

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values: dict):
        self.config = values

    def log(self, values: dict, step: int | None, **kwargs):
        self.lines.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def notebook(monkeypatch) -> type[Notebook]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "notebook", Notebook)
    monkeypatch.setattr(Notebook, "opened", [])
    return Notebook


def test_a_tracker_is_told_settings_and_numbers_and_is_ended(notebook, tmp_path):
    accelerator = Accelerator(log_with=["notebook"])
    with tracked(accelerator, RunDir(tmp_path), Settings(), step=0):
        track(accelerator, {"kind": "train", "step": 3, "loss": 0.5, "rates": [0.1, {"a": 2}], "phase": "x"})
        track(accelerator, {"kind": "eval", "step": 4, "mse": math.nan, "none": None})
    (told,) = notebook.opened
    assert (told.project, told.finished) == ("mini", 1)
    assert told.config == {
        "name": "mini",
        "rate": 0.5,
        "inner.pairs.0.0": 0,
        "inner.pairs.0.1": 8,
        "inner.start": "None",
    }
    assert told.lines == [(3, {"train/loss": 0.5, "train/rates/0": 0.1, "train/rates/1/a": 2}), (4, {})]


def test_a_tracker_is_ended_also_where_the_work_fails(notebook, tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        tracked(Accelerator(log_with=["notebook"]), RunDir(tmp_path), Settings(), step=0),
    ):
        raise ZeroDivisionError
    assert notebook.opened[0].finished == 1


def test_without_trackers_nothing_happens(tmp_path):
    accelerator = Accelerator()
    with tracked(accelerator, RunDir(tmp_path), Settings(), step=0):
        track(accelerator, {"kind": "train", "step": 0, "loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_unknown_trackers_get_the_nearest_and_missing_ones_their_package(monkeypatch, notebook):
    require_trackers(["tensorboard", "notebook"])
    with pytest.raises(ValueError, match=r"unknown tracker 'tensorbord': did you mean 'tensorboard'\?"):
        require_trackers(["tensorbord"])
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(MissingExtraError, match="the tracker 'wandb' is not installed: pip install wandb"):
        require_trackers(["tensorboard", "wandb"])


def test_leaves_are_named_by_their_paths():
    assert flat({"a": {"b": [1, None]}, "c": "x", "d": {}}, ".") == {"a.b.0": 1, "a.b.1": None, "c": "x"}
