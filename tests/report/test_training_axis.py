"""Curves over training share an axis of steps, and are calmed without losing a fall."""

from pathlib import Path

import numpy as np
import pytest

from torchcram.report.plots import accuracy_figure
from torchcram.report.records import load_record
from torchcram.report.training_axis import smooth


def test_the_training_of_a_baseline_is_no_phase(run_dir: Path, rewrite):
    rewrite(run_dir, lambda line: {**line, "phase": "train"})
    (axes,) = accuracy_figure(load_record(run_dir)).axes
    assert not axes.patches
    assert "train" not in {text.get_text() for text in axes.texts}


def test_smoothing_keeps_a_fall_sharp_and_removes_a_spike():
    values = np.where(np.arange(40) < 20, 1.0, 0.1)
    assert smooth(values) == pytest.approx(values)
    spiked = values.copy()
    spiked[30] = 0.9
    assert smooth(spiked) == pytest.approx(values)
