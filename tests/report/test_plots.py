import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drawn import line, words
from torchcram.report.plots import (
    accuracy_figure,
    calibration_figure,
    exposure_figure,
    quality_figure,
)
from torchcram.report.records import load_record


def test_accuracy_has_a_line_for_every_slice_also_of_ones_own_task(run_dir: Path, rewrite):
    rewrite(
        run_dir,
        lambda line: (
            {**line, "accuracy": {**line["accuracy"], "walking": 0.5}} if line["kind"] == "eval" else line
        ),
    )
    (axes,) = accuracy_figure(load_record(run_dir)).axes
    assert line(axes, "novel")[1] == pytest.approx([400, 0.06 + 0.935 / (1 + np.exp(80 / 60))])
    assert line(axes, "walking")[:, 1] == pytest.approx(0.5)
    for text in ("query 99.85%", "novel 99.51%", "walking 50%"):
        assert text in words(axes)


def test_all_is_not_drawn_over_the_queries_but_where_it_stands_alone(run_dir: Path, rewrite):
    rewrite(
        run_dir,
        lambda line: (
            {**line, "accuracy": {"all": 0.5, **line["accuracy"]}} if line["kind"] == "eval" else line
        ),
    )
    assert "all" not in {line.get_label() for line in accuracy_figure(load_record(run_dir)).axes[0].lines}
    rewrite(run_dir, lambda line: {**line, "accuracy": {"all": 0.5}} if line["kind"] == "eval" else line)
    assert line(accuracy_figure(load_record(run_dir)).axes[0], "all")[:, 1] == pytest.approx(0.5)


def test_quality_and_familiarity_are_drawn_apart(run_dir: Path):
    quality, familiarity = quality_figure(load_record(run_dir)).axes
    assert line(quality, "novel")[-1] == pytest.approx([890, 0.2])
    assert line(familiarity, "recurring")[:-4, 1] == pytest.approx(
        0.7 * (1 - np.exp(-np.arange(0, 2361, 10) / 600)), abs=0.01
    )
    assert line(familiarity, "novel")[-1, 0] == 2400


def test_exposures_show_the_share_that_read_and_the_planted_exponent(run_dir: Path):
    (axes,) = exposure_figure(load_record(run_dir)).axes
    (container,) = axes.containers
    points = container.lines[0].get_xydata()
    assert points[:, 0] == pytest.approx([((low + 1) * 2 * low) ** 0.5 for low in (1, 2, 4, 8, 16, 32, 64)])
    assert points[-1, 1] == pytest.approx(0.9 * (65 * 128) ** (-0.45 / 2), abs=0.001)
    (label,) = [text.get_text() for text in axes.get_legend().texts if "power law" in text.get_text()]
    assert "exponent 0.45 (0.4" in label
    assert "likelier" not in label


def test_calibration_shows_risk_skipped_share_and_what_was_chosen(run_dir: Path):
    left, right = calibration_figure(load_record(run_dir)).axes
    assert left.lines[1].get_xydata()[0] == pytest.approx([-4, 0.09 / (1 + np.exp(2.2 * -2.4))])
    assert right.lines[0].get_xydata()[-1] == pytest.approx([4, 1 / (1 + np.exp(1.6 * 1.8))])
    assert "chosen: 0.73%" in words(left)
    assert "tolerance 1%" in words(left)
    assert "chosen: 98.69%" in words(right)


def test_cautious_thresholds_that_change_nothing_are_left_out_of_the_curve(run_dir: Path):
    file = run_dir / "calibration.json"
    calibration = json.loads(file.read_text())
    (highest, *same), shift = sorted(calibration["curve"])[-1], calibration["threshold_shift"]
    calibration["curve"] += [[highest + 3, *same], [highest + 6, *same]]
    file.write_text(json.dumps(calibration))
    left, _ = calibration_figure(load_record(run_dir)).axes
    assert left.lines[1].get_xydata()[-1, 0] == highest
    # But the chosen one is never left out.
    file.write_text(json.dumps(calibration | {"threshold_shift": highest + 6}))
    assert shift != highest + 6
    left, _ = calibration_figure(load_record(run_dir)).axes
    assert left.lines[1].get_xydata()[-1, 0] == highest + 6


@pytest.mark.parametrize(
    ("draw", "kind", "field"),
    [
        (accuracy_figure, "eval", "accuracy"),
        (exposure_figure, "exposures", None),
    ],
)
def test_a_figure_without_data_is_none(run_dir: Path, rewrite, draw: Callable, kind: str, field: str | None):
    rewrite(
        run_dir,
        lambda line: (
            line
            if line["kind"] != kind
            else field and {key: value for key, value in line.items() if key != field}
        ),
    )
    assert draw(load_record(run_dir)) is None


def test_quality_that_was_never_observed_is_left_out(run_dir: Path, rewrite):
    rewrite(run_dir, lambda line: {**line, "quality": {"recurring": None, "novel": None}})
    assert [axes.get_ylabel() for axes in quality_figure(load_record(run_dir)).axes] == ["familiarity"]
    rewrite(run_dir, lambda line: {**line, "familiarity": {}})
    assert quality_figure(load_record(run_dir)) is None


def test_no_calibration_no_figure(run_dir: Path):
    (run_dir / "calibration.json").unlink()
    assert calibration_figure(load_record(run_dir)) is None


def test_exposures_without_queries_are_no_figure(run_dir: Path):
    empty = {"kind": "exposures", "step": 2400, "edges": [1, 2, 4], "queries": [[0, 0]], "reads": [[0, 0]]}
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(empty) + "\n")
    assert exposure_figure(load_record(run_dir)) is None
