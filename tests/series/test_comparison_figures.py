"""Figures of a comparison show what the results hold, and nothing where there are none."""

import numpy as np
import pytest

from torchcram.report.style import ROUTE_COLOURS, png
from torchcram.series.comparison.methods import METHODS
from torchcram.series.comparison_figures import COLOURS, calibration_figure, patient_figure, quality_figure
from torchcram.types import Route


def results() -> dict:
    """Two splits of three methods; one reads little, one everything, one has no share."""
    shares, means = (
        {"cram": 0.06, "transformer": 1.0, "boosting": None},
        {"cram": 0.85, "transformer": 0.84, "boosting": 0.86},
    )
    bins = [{"count": 30, "said": 0.05, "came": 0.0}, {"count": 10, "said": 0.75, "came": 0.5}]
    other = [{"count": 10, "said": 0.05, "came": 0.4}]
    return {
        name: {
            split: {
                "auroc": means[name] + 0.01 * split,
                "attention_share": shares[name],
                "calibration": (bins, other)[split],
            }
            for split in (0, 1)
        }
        for name in shares
    }


def test_quality_stands_against_share_and_a_method_without_one_is_a_line():
    (axes,) = quality_figure(results(), figure="auroc").axes
    points = {text.get_text(): text.xy for text in axes.texts if hasattr(text, "xy")}
    assert points == {"cram": pytest.approx((0.06, 0.855)), "transformer": pytest.approx((1.0, 0.845))}
    dashed = [line for line in axes.lines if line.get_color() == COLOURS["boosting"]]
    assert [line.get_ydata()[0] for line in dashed] == pytest.approx([0.865])
    assert "boosting" in [text.get_text() for text in axes.texts]
    assert axes.get_ylabel() == "AUROC"


def test_names_of_points_that_lie_together_stand_above_and_below():
    close = results()
    close["ssm"] = {
        split: {**one, "auroc": one["auroc"] + 0.0002, "attention_share": 0.05}
        for split, one in close["cram"].items()
    }
    (axes,) = quality_figure(close, figure="auroc").axes
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts if hasattr(text, "xy")}
    assert heights["cram"] < 0 < heights["ssm"] == heights["transformer"]


def test_calibration_joins_the_splits_by_their_counts():
    (axes,) = calibration_figure(results()).axes
    (ours,) = [line for line in axes.lines if line.get_label() == "cram"]
    np.testing.assert_allclose(ours.get_xydata(), [[0.05, 0.1], [0.75, 0.5]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cram", "transformer", "boosting"]


def test_a_patient_shows_the_route_of_each_step_above_what_was_measured():
    found = {
        "record": 132_539,
        "hours": [0.5, 4.0, 30.0],
        "routes": [[0, 1, 2], [0, 0, 2]],
        "measured": {
            "HR": {"hours": [0.5, 30.0], "values": [80.0, 95.0]},
            "Lactate": {"hours": [], "values": []},
        },
    }
    figure = patient_figure(found)
    top, measured = figure.axes
    assert "record 132539: 1 of 3 steps read" in top.get_title(loc="left")
    layers = [collection.get_offsets() for collection in top.collections]
    np.testing.assert_allclose(layers[1], [[0.5, 2], [4.0, 2], [30.0, 2]])
    assert top.collections[0].get_array().tolist() == [Route.WORKING, Route.SEMANTIC, Route.EPISODIC]
    np.testing.assert_allclose(measured.lines[0].get_xydata(), [[0.5, 80.0], [30.0, 95.0]])
    assert measured.get_ylabel() == "HR"
    (legend,) = figure.legends
    assert len(legend.get_texts()) == len(ROUTE_COLOURS)
    assert png(figure)[:4] == b"\x89PNG"


def test_without_results_nothing_is_drawn():
    assert quality_figure({}, figure="auroc") is None
    assert calibration_figure({}) is None


def test_every_method_has_a_colour_of_its_own():
    assert set(COLOURS) == set(METHODS)
    assert len(set(COLOURS.values())) == len(METHODS)
