import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from torchcram.report.maps import route_map_figure, routes_by_slice_figure
from torchcram.report.records import load_record
from torchcram.report.style import ROUTE_COLOURS
from torchcram.types import Route


def test_the_route_map_shows_every_step_of_every_layer_in_its_colour(run_dir: Path):
    (axes,) = route_map_figure(load_record(run_dir)).axes
    (image,) = axes.images
    routes = json.loads((run_dir / "route_map.json").read_text())["routes"]
    assert np.array_equal(image.get_array(), routes)
    assert [to_hex(image.to_rgba(np.array([[int(route)]]))[0, 0]).upper() for route in Route] == list(
        ROUTE_COLOURS.values()
    )
    known, needed = (line.get_xdata() - 0.5 for line in axes.lines)
    assert list(needed) == [59, 119, 179, 239]
    assert list(known) == [19, 39, 79, 99, 139, 159, 199, 219]
    assert (
        axes.get_title(loc="left")
        == "5 of 256 steps read: 4 of the 4 queries that need it, 1 of the 8 known by heart"
    )


def test_a_long_sequence_is_wrapped_without_loss(run_dir: Path):
    routes = np.random.default_rng(0).integers(0, 3, (3, 600)).tolist()
    (run_dir / "route_map.json").write_text(json.dumps({"routes": routes}))
    figure = route_map_figure(load_record(run_dir))
    parts = [axes.images[0].get_array() for axes in figure.axes]
    assert [part.shape[1] for part in parts] == [256, 256, 88]
    assert np.array_equal(np.concatenate(parts, 1), routes)
    # All rows have the same scale.
    assert {np.ptp(axes.get_xlim()) for axes in figure.axes} == {256.0}
    assert "steps read" in figure.axes[0].get_title(loc="left")
    assert "queries" not in figure.axes[0].get_title(loc="left")


def test_shares_by_slice_are_stacked_to_one(run_dir: Path):
    (axes,) = routes_by_slice_figure(load_record(run_dir)).axes
    widths = np.array([[bar.get_width() for bar in bars] for bars in axes.containers])
    assert (
        pytest.approx(np.array([[0.02, 0.66, 0.32], [0.03, 0.94, 0.03], [0.002, 0.003, 0.995]])) == widths.T
    )
    assert [bars[1].get_x() for bars in axes.containers] == pytest.approx([0, 0.03, 0.97])
    assert (
        axes.get_title(loc="left")
        == "Answered without a read: 97% of the recurring queries, 0.5% of the novel ones"
    )


def test_runs_without_routes_have_no_maps(run_dir: Path, rewrite):
    for name in ("route_map.json", "summary.json"):
        (run_dir / name).unlink()
    rewrite(run_dir, lambda line: {key: value for key, value in line.items() if key != "routes_by_slice"})
    record = load_record(run_dir)
    assert (route_map_figure(record), routes_by_slice_figure(record)) == (None, None)
