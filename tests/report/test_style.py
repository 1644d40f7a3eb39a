import subprocess
import sys
from itertools import combinations, pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from torchcram.report.style import (
    OTHER_COLOURS,
    ROUTE_COLOURS,
    SLICE_COLOURS,
    end_labels,
    png,
    rate_axis,
    slice_colour,
    styled,
)


def test_the_style_leaves_no_trace_not_even_after_an_error():
    before = dict(mpl.rcParams.copy())

    @styled
    def broken() -> None:
        assert mpl.rcParams["axes.spines.top"] is False
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        broken()
    assert dict(mpl.rcParams.copy()) == before


def test_a_users_settings_do_not_change_a_figure():
    @styled
    def draw() -> bytes:
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2], label="x")
        return png(figure)

    plain = draw()
    with mpl.rc_context({"lines.linestyle": ":", "font.size": 30}):
        assert draw() == plain


@pytest.mark.slow
def test_pyplot_is_never_touched():
    code = (
        "import sys, torchcram.report.html, torchcram.reproduce.headline, torchcram.report.drawing; "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SRCD = ("query", "recurring", "novel", "overridden", "unanswerable")

# Machado, Oliveira and Fernandes (2009): what full deuteranopia and protanopia make of linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
}


@pytest.mark.parametrize("matrix", BLINDNESS.values(), ids=BLINDNESS.keys())
@pytest.mark.parametrize(
    "colours", [ROUTE_COLOURS, {name: SLICE_COLOURS[name] for name in SRCD}], ids=["routes", "slices"]
)
def test_colours_stay_apart_for_colour_blind_readers(colours: dict, matrix: np.ndarray):
    seen = {
        name: np.clip(matrix @ np.array(to_rgb(colour)) ** 2.2, 0, 1) ** (1 / 2.2)
        for name, colour in colours.items()
    }
    for first, second in combinations(seen, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 0.25, (first, second)


def test_colours_of_unknown_slices_differ_from_each_other_and_the_known():
    names = ["query", "walking", "sitting"]
    colours = [slice_colour(name, names) for name in names]
    assert colours == [SLICE_COLOURS["query"], OTHER_COLOURS[0], OTHER_COLOURS[1]]


@styled
def labelled(heights: list[float]) -> list[tuple[str, float]]:
    axes = Figure().subplots()
    axes.set_ylim(0, 1)
    end_labels(axes, [(height, str(height), "black") for height in heights], gap=0.1)
    return [(text.get_text(), text.get_position()[1]) for text in axes.texts]


def test_labels_at_the_ends_of_lines_are_pushed_apart_as_little_as_needed():
    assert labelled([0.2, 0.8]) == [("0.2", pytest.approx(0.2)), ("0.8", pytest.approx(0.8))]
    assert labelled([0.52, 0.5]) == [("0.5", pytest.approx(0.46)), ("0.52", pytest.approx(0.56))]
    crowded = [height for _, height in labelled([1.0, 0.99, 0.98, 0.97])]
    assert crowded == pytest.approx([0.7, 0.8, 0.9, 1.0])
    assert all(upper - lower > 0.0999 for lower, upper in pairwise(crowded))


def test_the_rate_axis_is_logarithmic_and_still_shows_zero():
    axes = Figure().subplots()
    rate_axis(axes, label="reads")
    zero, thousandth, hundredth, tenth = (
        axes.transData.transform((0, share))[1] for share in (0.0, 0.001, 0.01, 0.1)
    )
    assert zero < thousandth
    assert hundredth - thousandth == pytest.approx(tenth - hundredth, rel=1e-6)
    assert [axes.yaxis.get_major_formatter()(tick, 0) for tick in axes.get_yticks()] == [
        "0%",
        "0.1%",
        "1%",
        "10%",
        "100%",
    ]
