import json
from pathlib import Path

import numpy as np
import pytest

from planted_run import SUMMARY, rewrite_metrics, write_planted_run
from torchcram.report.records import load_record, series
from torchcram.reproduce.headline import headline_figure


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_planted_run(tmp_path / f"seed{seed}", seed=seed) for seed in range(3)]


def test_runs_are_thin_lines_and_their_mean_a_bold_one(runs: list[Path]):
    top, bottom = headline_figure(runs).axes
    assert sum(line.get_label() == "run" for line in top.lines) == 3
    (mean,) = [line for line in top.lines if line.get_label() == "mean"]
    each = np.array([line.get_ydata() for line in top.lines if line.get_label() == "run"])
    assert mean.get_ydata() == pytest.approx(np.exp(np.log(each).mean(0)))
    assert mean.get_linewidth() > 2 * top.lines[0].get_linewidth()
    (answers,) = [line for line in bottom.lines if line.get_label() == "mean"]
    _, accuracy = series(load_record(runs[0]).evaluations, "accuracy", "query")
    assert answers.get_ydata() == pytest.approx(accuracy)
    words = [text.get_text() for axes in (top, bottom) for text in axes.texts]
    for text in (
        "evaluated 1.52%",
        "floor 1.41%",
        "correct 99.85%",
        "acquire",
        "consolidate",
        "mature",
        "mean of 3 runs (thin: each of them)",
    ):
        assert text in words


def test_final_figures_are_means_over_the_runs(runs: list[Path]):
    (runs[0] / "summary.json").write_text(
        json.dumps({**SUMMARY, "any_layer_read_rate": 0.0302, "retrieval_accuracy": 0.9685})
    )
    words = [text.get_text() for axes in headline_figure(runs).axes for text in axes.texts]
    assert "evaluated 2.02%" in words
    assert "correct 98.85%" in words


def test_one_run_needs_no_mean(runs: list[Path]):
    top, bottom = headline_figure(runs[:1]).axes
    assert all(line.get_label() != "run" for line in top.lines)
    assert not any("mean of" in text.get_text() for text in bottom.texts)


def test_runs_of_different_length_are_averaged_where_all_of_them_are(runs: list[Path]):
    rewrite_metrics(runs[0], lambda line: line if line["step"] <= 1200 else None)
    (mean,) = [line for line in headline_figure(runs).axes[0].lines if line.get_label() == "mean"]
    assert mean.get_xdata()[-1] == 1200


def test_runs_that_have_nothing_to_show_are_refused(runs: list[Path]):
    with pytest.raises(ValueError, match="at least one run"):
        headline_figure([])
    rewrite_metrics(runs[1], lambda line: line if line["kind"] == "train" else None)
    with pytest.raises(ValueError, match="seed1 has no accuracy on queries"):
        headline_figure(runs)
