"""The headline figure shows reads with all that they are held against, and praises no fall that was none."""

from pathlib import Path

import numpy as np
import pytest

from drawn import line, words
from torchcram.report.read_rates import read_rate_figure
from torchcram.report.records import load_record


def test_read_rates_are_drawn_over_training_with_floor_phases_and_transition(run_dir: Path):
    figure = read_rate_figure(load_record(run_dir))
    top, bottom = figure.axes
    rates = line(top, "any layer")
    assert rates[:90, 1] == pytest.approx(1.0)
    assert rates[-1, 0] == 2400
    assert rates[200:, 1] == pytest.approx(0.0152, rel=0.2)
    assert line(top, "layer 2")[100:, 1] == pytest.approx(0.0)
    assert line(top, "any layer, evaluated")[:, 0] == pytest.approx(np.arange(200, 2401, 200))
    assert line(top, "floor")[:, 1] == pytest.approx(0.0141)
    assert line(bottom, "floor")[:, 1] == pytest.approx(0.0080)
    assert line(top, "sharpest fall")[:, 0] == pytest.approx(900)
    assert "Reads fell from 100% to 1.52% of the steps" in words(top)
    for text in (
        "acquire",
        "consolidate",
        "mature",
        "any layer 1.52%",
        "floor 1.41%",
        "layer 2 0%",
        "sharpest fall: step 900",
    ):
        assert text in words(top)
    spans = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in bottom.patches)
    assert spans == [(0, 750), (750, 1600), (1600, 2400)]


def test_what_a_read_rate_figure_lacks_is_left_out(run_dir: Path, rewrite):
    kept = ("kind", "step", "any_layer_read_rate")
    rewrite(run_dir, lambda line: {key: line[key] for key in kept if key in line})
    (run_dir / "summary.json").unlink()
    (axes,) = read_rate_figure(load_record(run_dir)).axes
    assert "floor" not in {line.get_label() for line in axes.lines}
    assert not axes.patches


def test_reads_that_did_not_fall_are_not_praised(run_dir: Path, rewrite):
    (run_dir / "summary.json").unlink()
    rewrite(
        run_dir, lambda line: {**line, "any_layer_read_rate": 1.0} if "any_layer_read_rate" in line else line
    )
    top = read_rate_figure(load_record(run_dir)).axes[0]
    assert "Reads did not fall: 100% of the steps" in words(top)
    assert "sharpest fall" not in words(top)


def test_a_length_curriculum_is_marked(run_dir: Path, rewrite):
    rewrite(
        run_dir,
        lambda line: {**line, "length": 2048} if line["kind"] == "train" and line["step"] >= 800 else line,
    )
    top = read_rate_figure(load_record(run_dir)).axes[0]
    assert line(top, "length")[:, 0] == pytest.approx(800)
    assert "length 2,048" in words(top)


def test_a_run_without_read_rates_has_no_such_figure(run_dir: Path, rewrite):
    rewrite(run_dir, lambda line: {key: value for key, value in line.items() if key != "any_layer_read_rate"})
    assert read_rate_figure(load_record(run_dir)) is None
